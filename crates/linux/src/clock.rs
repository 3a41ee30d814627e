//! What the kernel thinks of its own clock (adjtimex(2)).

/// `STA_UNSYNC`: nobody disciplines the clock.
const UNSYNCHRONISED: i32 = 0x40;

/// Whether somebody (NTP, PTP, the hypervisor) keeps the clock right, by the kernel's own account.
pub fn is_synchronised() -> std::io::Result<bool> {
    // SAFETY: an all-zero `timex` is a valid value of that plain C struct; with modes 0 the call only writes into it.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex.status)
    };
    if state < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(status & UNSYNCHRONISED == 0)
}

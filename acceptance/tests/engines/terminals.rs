//! Terminals under dockerd and Podman: the runtime hands the master to a console socket.

use crate::engine::{Engine, IMAGE};

crate::for_both! {
    run_it_has_a_terminal,
    exec_it_has_a_terminal,
    a_terminal_has_the_users_size,
}

fn run_it_has_a_terminal(engine: &Engine) {
    let (code, screen) = engine.typed(&format!("run -it --rm {IMAGE} sh"), b"tty; echo $((40+2)); exit 11\n");
    assert_eq!(code, 11, "{screen}");
    assert!(screen.contains("/dev/pts/0") && screen.contains("42"), "{screen}");
}

fn exec_it_has_a_terminal(engine: &Engine) {
    let _guard = engine.sleeper("screen", "");
    let (code, screen) = engine.typed("exec -it screen sh", b"tty; echo $((40+2)); exit 12\n");
    assert_eq!(code, 12, "{screen}");
    assert!(screen.contains("/dev/pts/0") && screen.contains("42"), "{screen}");
}

fn a_terminal_has_the_users_size(engine: &Engine) {
    // Docker's client sends the size after the start: asked for until it has come.
    let script = b"while [ \"$(stty size)\" != '33 101' ]; do sleep 0.1; done; echo sized; exit 0\n";
    let (code, screen) = engine.typed(&format!("run -it --rm {IMAGE} sh"), script);
    assert_eq!(code, 0, "{screen}");
}

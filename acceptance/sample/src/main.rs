//! `sample-server`: says who it is and whom it sees; the image of the demo and the probe of the tests.
//!
//! Only the standard library, linked statically: the image is this one file.

mod client;
mod dns;
mod load;
mod server;

use std::process::ExitCode;

const USAGE: &str = "sample-server [serve [PORT]]            HTTP and UDP echo on PORT (default 80)
sample-server get URL [COUNT]           one line for each answer
sample-server udp ADDRESS:PORT TEXT [COUNT]
sample-server dns NAME [SERVER[:PORT]]  addresses, one a line
sample-server ptr ADDRESS
sample-server sink PORT | blast ADDRESS:PORT SECONDS | connects ADDRESS:PORT COUNT
sample-server exit CODE | sleep SECONDS | cat FILE | env | lines COUNT";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] | ["serve"] => server::serve(80),
        ["serve", port] => number(port).and_then(|p| server::serve(u16::try_from(p).unwrap_or(80))),
        ["get", url] => client::get(url, 1),
        ["get", url, count] => number(count).and_then(|n| client::get(url, n)),
        ["udp", address, text] => client::udp(address, text, 1),
        ["udp", address, text, count] => number(count).and_then(|n| client::udp(address, text, n)),
        ["dns", name] => dns::print_addresses(name, "127.0.0.11"),
        ["dns", name, server] => dns::print_addresses(name, server),
        ["ptr", address] => dns::print_name(address, "127.0.0.11"),
        ["sink", port] => number(port).and_then(|p| load::sink(u16::try_from(p).unwrap_or(9000))),
        ["blast", target, seconds] => number(seconds).and_then(|s| load::blast(target, s)),
        ["connects", target, count] => number(count).and_then(|n| load::connects(target, n)),
        ["exit", code] => return ExitCode::from(code.parse().unwrap_or(1)),
        ["sleep", seconds] => number(seconds).map(|s| std::thread::sleep(std::time::Duration::from_secs(s))),
        ["cat", file] => {
            std::fs::read_to_string(file).map(|t| print!("{t}")).map_err(|e| format!("read {file}: {e}"))
        }
        ["env"] => {
            std::env::vars().for_each(|(k, v)| println!("{k}={v}"));
            Ok(())
        }
        ["lines", count] => number(count).map(|n| (1..=n).for_each(|i| println!("line {i}"))),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("sample-server: {message}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

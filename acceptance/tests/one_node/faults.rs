//! kill -9 of the daemon: what runs goes on, and is found again.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::wait;
use std::time::Duration;

/// The cases; they come last, because they restart the node's daemon.
pub const CASES: &[Case<Nodes>] = &[
    ("a_full_disk_is_survived", a_full_disk_is_survived),
    ("a_killed_daemon_stops_nothing", a_killed_daemon_stops_nothing),
    ("exits_while_the_daemon_is_away_are_known", exits_while_the_daemon_is_away_are_known),
    (
        "a_daemon_killed_again_and_again_while_it_works_stays_sound",
        a_daemon_killed_again_and_again_while_it_works_stays_sound,
    ),
];

/// A daemon of its own whose data is on a small file system, in a mount namespace of its own.
struct Small<'a> {
    docker: acceptance::docker::Docker,
    daemon: std::process::Child,
    nodes: &'a Nodes,
}

impl<'a> Small<'a> {
    fn up(nodes: &'a Nodes) -> Self {
        let (data, run, socket) = (nodes.path("small"), nodes.path("small-run"), nodes.path("small.sock"));
        // Its cgroups go with those of the playground.
        let node = nodes.playground().node(1).unwrap_or_else(|e| panic!("{e}")).clone();
        std::fs::create_dir_all(&data).unwrap_or_else(|e| panic!("make {}: {e}", data.display()));
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs -o size=32m small {data} && exec {gantry} daemon --data-root {data}/gantry \
             --run-root {run} -H unix://{socket} --cgroup-parent {cgroup}-small --nft-table small --bip 10.92.0.1/24 >{data}.log 2>&1",
            cgroup = node.cgroup,
            data = data.display(),
            gantry = acceptance::nodes::gantry().display(),
            run = run.display(),
            socket = socket.display(),
        );
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]);
        let daemon = nodes.spawn_on(1, command);
        let docker = nodes.docker(1).at(&socket);
        let small = Self { docker, daemon, nodes };
        wait::until("the small daemon answers", Duration::from_secs(20), || {
            let answer = small.docker.try_run(["version"]);
            wait::that(answer.code == 0, answer.err)
        });
        small
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let all = self.docker.try_run(["ps", "-aq"]).out;
        for id in all.split_whitespace() {
            self.docker.try_run(["rm", "-f", id]);
        }
        let end = std::process::Command::new("kill").arg(self.daemon.id().to_string()).status();
        let ended = self.daemon.wait();
        if std::thread::panicking() {
            let log = self.nodes.path("small.log");
            eprintln!("{end:?} {ended:?}\n{}", std::fs::read_to_string(log).unwrap_or_default());
        }
    }
}

/// What is refused for want of room is refused with that reason, what makes room works, and afterwards all works as before.
fn a_full_disk_is_survived(nodes: &Nodes) {
    let small = Small::up(nodes);
    let docker = &small.docker;
    let archive = nodes.path("sample.tar").display().to_string();
    docker.ok_args(&["import", "-c", "ENV PATH=/usr/bin:/bin", &archive, IMAGE]);
    docker.ok(&format!("run -d --name before --network none {IMAGE} sleep 300"));
    let fill = "cat /dev/zero >/big; cat /dev/zero >/rest; exit 0";
    docker.ok_args(&["run", "--name", "filler", "--network", "none", IMAGE, "sh", "-c", fill]);
    for round in 0..2 {
        for line in [
            format!("run --name more{round} --network none {IMAGE} true"),
            format!("import {archive} other:1"),
        ] {
            let refused = docker.fails(&line);
            assert!(refused.err.contains("No space left on device"), "{line}: {}", refused.err);
        }
    }
    assert_eq!(docker.inspect("filler")["State"]["Status"], "exited");
    let refused = docker.with_input("load", &vec![0; 1 << 20]);
    assert!(refused.err.contains("Error response from daemon"), "{}", refused.err);
    docker.ok("stop -t 0 before");
    // Without room, what makes room has to work.
    docker.ok("rm filler");
    assert_eq!(docker.ok(&format!("run --rm --network none {IMAGE} echo alive")), "alive");
    docker.ok("start before");
    assert_eq!(docker.ok("exec before echo alive"), "alive");
    docker.ok("volume create after");
    // Where there was room for the record and not for the files, a container was made that could not start; it can be removed.
    docker.try_run(["rm", "more0", "more1"]);
    assert_eq!(docker.ok_args(&["ps", "-a", "--format", "{{.Names}}"]), "before");
}

fn a_killed_daemon_stops_nothing(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create durable");
    docker.ok_args(&[
        "run",
        "-d",
        "--name",
        "counter",
        "--network",
        "durable",
        IMAGE,
        "sh",
        "-c",
        "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done",
    ]);
    docker.ok(&format!("run -d --name server --network durable -p 8090:80 {IMAGE}"));
    let pid = docker.inspect("counter")["State"]["Pid"].clone();
    nodes.kill_daemon(1);
    // While it is away: the published port answers, and names resolve inside.
    assert!(nodes.from_outside("http://NODE1:8090/").contains("host="));
    let names =
        nodes.in_container_of(pid.as_i64().unwrap_or_default(), &["/sample-server", "get", "http://server/"]);
    assert!(names.contains("host="), "{names}");
    let away = std::time::Instant::now();
    wait::until("time passes for the counter", Duration::from_secs(5), || {
        wait::that(away.elapsed() > Duration::from_secs(1), "waiting")
    });
    nodes.start_daemon(1);
    assert_eq!(docker.inspect("counter")["State"]["Pid"], pid);
    assert_eq!(docker.ok("exec counter echo back"), "back");
    let lines: Vec<u64> = docker.ok("logs counter").lines().filter_map(|l| l.parse().ok()).collect();
    assert!(
        lines.len() > 20 && lines.windows(2).all(|w| w[1] == w[0] + 1),
        "a gap in the log: {} lines",
        lines.len()
    );
    assert!(nodes.from_outside("http://NODE1:8090/").contains("host="));
    docker.ok("stop -t 0 counter");
    assert_eq!(docker.inspect("counter")["State"]["ExitCode"], 137);
    docker.ok("rm -f counter server");
    docker.ok("network rm durable");
}

fn exits_while_the_daemon_is_away_are_known(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "run",
        "-d",
        "--name",
        "brief",
        IMAGE,
        "sh",
        "-c",
        "while ! test -e /tmp/go; do sleep 0.05; done; echo last words; exit 23",
    ]);
    docker.ok(&format!("run -d --restart always --name phoenix {IMAGE} sleep 300"));
    let pid = docker.inspect("brief")["State"]["Pid"].as_i64().unwrap_or_default();
    let phoenix = docker.inspect("phoenix")["State"]["Pid"].as_i64().unwrap_or_default();
    nodes.kill_daemon(1);
    let root = format!("/proc/{pid}/root/tmp/go");
    std::fs::write(&root, "").unwrap_or_else(|e| panic!("write {root}: {e}"));
    crate::lifecycle::kill(phoenix);
    wait::until("it ends", Duration::from_secs(5), || {
        wait::that(!std::path::Path::new(&root).exists(), "still there")
    });
    nodes.start_daemon(1);
    wait::until("the exit is known", Duration::from_secs(5), || {
        let state = docker.inspect("brief")["State"].clone();
        wait::that(state["ExitCode"] == 23 && state["Status"] == "exited", state.to_string())
    });
    assert!(docker.ok("logs brief").contains("last words"));
    wait::until("the other was started again", Duration::from_secs(10), || {
        let state = docker.inspect("phoenix")["State"].clone();
        wait::that(state["Running"] == true && state["Pid"] != phoenix, state.to_string())
    });
    docker.ok("rm -f brief phoenix");
}

fn a_daemon_killed_again_and_again_while_it_works_stays_sound(nodes: &Nodes) {
    let docker = nodes.docker(1);
    for round in 0..6u64 {
        let workers: Vec<_> = (0..3)
            .map(|i| docker.spawn(&format!("run -d --name storm{round}-{i} {IMAGE} sleep 300")))
            .collect();
        // A different moment of the work in each round: that is the point, no condition is awaited here.
        std::thread::sleep(Duration::from_millis(15 + round * 25));
        nodes.kill_daemon(1);
        for worker in workers {
            // Its client lost the connection or was done; either is right.
            let _whatever = worker.wait_with_output();
        }
        nodes.start_daemon(1);
    }
    for name in docker.ok_args(&["ps", "-a", "--filter", "name=storm", "--format", "{{.Names}}"]).lines() {
        let state = docker.inspect(name)["State"]["Status"].clone();
        assert!(state == "created" || state == "running" || state == "exited", "{name}: {state}");
        docker.ok(&format!("rm -f {name}"));
    }
    for (i, round) in (0..6).flat_map(|r| (0..3).map(move |i| (i, r))) {
        docker.ok(&format!("run --rm --name storm{round}-{i} {IMAGE} true"));
    }
}

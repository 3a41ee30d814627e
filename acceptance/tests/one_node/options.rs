//! The flags of `docker run`: each is looked at from inside the container.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::wait;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("environment_hostname_workdir_user", environment_hostname_workdir_user),
    ("env_file_and_labels", env_file_and_labels),
    ("entrypoint_replaces_and_command_is_its_argument", entrypoint_replaces_and_command_is_its_argument),
    ("limits_reach_the_cgroup", limits_reach_the_cgroup),
    ("memory_limit_kills_and_says_so", memory_limit_kills_and_says_so),
    ("ulimits_and_sysctls", ulimits_and_sysctls),
    ("read_only_root_with_tmpfs", read_only_root_with_tmpfs),
    ("capabilities_are_dockers_and_change", capabilities_are_dockers_and_change),
    ("security_options", security_options),
    ("privileged_and_devices", privileged_and_devices),
    ("init_reaps_and_forwards", init_reaps_and_forwards),
    ("pid_host_and_container_namespaces", pid_host_and_container_namespaces),
    ("other_runtimes_run_too", other_runtimes_run_too),
    ("groups_come_from_the_image", groups_come_from_the_image),
];

fn inside(nodes: &Nodes, flags: &str, script: &str) -> String {
    let mut args: Vec<&str> = vec!["run", "--rm"];
    args.extend(flags.split_whitespace());
    args.extend([IMAGE, "sh", "-c", script]);
    nodes.docker(1).ok_args(&args)
}

fn environment_hostname_workdir_user(nodes: &Nodes) {
    assert_eq!(
        inside(nodes, "-e A=1 --hostname box -w /tmp/new", "echo $A $(hostname) $(pwd)"),
        "1 box /tmp/new"
    );
    assert_eq!(inside(nodes, "--user 1000:2000", "id -u; id -g"), "1000\n2000");
    assert_eq!(inside(nodes, "--user user", "id -un; echo $HOME"), "user\n/home");
    assert_eq!(inside(nodes, "--add-host db:192.0.2.7", "grep db /etc/hosts"), "192.0.2.7\tdb");
    let failed = nodes.docker(1).fails(&format!("run --rm --user nobody-here {IMAGE} true"));
    assert!(failed.err.contains("nobody-here"), "{}", failed.err);
}

fn env_file_and_labels(nodes: &Nodes) {
    let file = nodes.path("env-file");
    std::fs::write(&file, "B=two words\n# comment\nC=3\n").unwrap_or_else(|e| panic!("write env file: {e}"));
    assert_eq!(inside(nodes, &format!("--env-file {}", file.display()), "echo \"$B $C\""), "two words 3");
    let docker = nodes.docker(1);
    docker.ok(&format!("create --name labelled -l a=b -l c {IMAGE}"));
    assert_eq!(docker.inspect("labelled")["Config"]["Labels"], serde_json::json!({"a": "b", "c": ""}));
    docker.ok("rm labelled");
}

fn entrypoint_replaces_and_command_is_its_argument(nodes: &Nodes) {
    let docker = nodes.docker(1);
    assert_eq!(docker.ok(&format!("run --rm --entrypoint echo {IMAGE} one two")), "one two");
}

fn limits_reach_the_cgroup(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!(
        "run -d --name limited --memory 48m --cpus 0.5 --cpuset-cpus 0 --pids-limit 20 {IMAGE} sleep 300"
    ));
    assert_eq!(docker.ok("exec limited nproc"), "1");
    let read = |v1: &str, v2: &str| {
        docker.ok_args(&[
            "exec",
            "limited",
            "sh",
            "-c",
            &format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"),
        ])
    };
    assert_eq!(read("memory/memory.limit_in_bytes", "memory.max"), (48 << 20).to_string());
    assert_eq!(read("pids/pids.max", "pids.max"), "20");
    let quota = read("cpu/cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    let many = docker.try_run(["exec", "limited", "sh", "-c", "for i in $(seq 40); do sleep 5 & done; wait"]);
    assert!(many.err.contains("can't fork"), "{} {}", many.code, many.err);
    docker.ok("rm -f limited");
}

fn memory_limit_kills_and_says_so(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let script = "x=$(dd if=/dev/zero bs=1M count=200 2>/dev/null | tr '\\0' a); echo ${#x}";
    let answer = docker.try_run([
        "run",
        "--name",
        "hungry",
        "--memory",
        "24m",
        "--memory-swap",
        "24m",
        IMAGE,
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(answer.code, 137, "{} {}", answer.out, answer.err);
    assert_eq!(docker.inspect("hungry")["State"]["OOMKilled"], true);
    docker.ok("rm hungry");
}

fn ulimits_and_sysctls(nodes: &Nodes) {
    assert_eq!(inside(nodes, "--ulimit nofile=123:456", "ulimit -Sn; ulimit -Hn"), "123\n456");
    assert_eq!(
        inside(
            nodes,
            "--sysctl net.ipv4.ip_unprivileged_port_start=99",
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
        ),
        "99"
    );
    let refused = nodes.docker(1).fails(&format!("run --rm --sysctl kernel.panic=1 {IMAGE} true"));
    assert!(refused.err.contains("kernel.panic"), "{}", refused.err);
}

fn read_only_root_with_tmpfs(nodes: &Nodes) {
    let out = inside(
        nodes,
        "--read-only --tmpfs /scratch:size=1m,mode=700",
        "touch /x; touch /scratch/y && echo wrote; stat -c %a /scratch; df -k /scratch | tail -1",
    );
    assert!(out.contains("wrote") && out.contains("700") && out.contains("1024"), "{out}");
    assert!(inside(nodes, "--read-only", "touch /x 2>&1 || true").contains("Read-only file system"));
    assert!(
        inside(nodes, "--mount type=tmpfs,target=/scratch,tmpfs-size=2m", "df -k /scratch | tail -1")
            .contains("2048")
    );
}

fn capabilities_are_dockers_and_change(nodes: &Nodes) {
    let effective =
        |flags: &str| inside(nodes, flags, "grep CapEff /proc/self/status").replace("CapEff:\t", "");
    assert_eq!(effective(""), "00000000a80425fb");
    assert_eq!(effective("--cap-drop ALL"), "0000000000000000");
    assert_eq!(effective("--cap-drop ALL --cap-add NET_ADMIN"), "0000000000001000");
    assert_eq!(effective("--cap-add SYS_TIME"), "00000000aa0425fb");
    assert_eq!(effective("--user 1000"), "0000000000000000");
}

fn security_options(nodes: &Nodes) {
    assert_eq!(
        inside(nodes, "--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status"),
        "NoNewPrivs:\t1"
    );
    assert_eq!(inside(nodes, "", "grep Seccomp: /proc/self/status"), "Seccomp:\t2");
    assert_eq!(
        inside(nodes, "--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status"),
        "Seccomp:\t0"
    );
    let profile = nodes.path("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
    std::fs::write(&profile, text).unwrap_or_else(|e| panic!("write profile: {e}"));
    let out = inside(
        nodes,
        &format!("--security-opt seccomp={}", profile.display()),
        "mkdir /tmp/d 2>&1 || echo refused",
    );
    assert!(out.contains("Operation not permitted") && out.contains("refused"), "{out}");
    // Those that this kernel has; a masked file reads as empty, a masked folder lists as empty.
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/interrupts"] {
        if std::path::Path::new(path).exists() {
            assert_eq!(inside(nodes, "", &format!("cat {path} | wc -c")), "0", "{path}");
        }
    }
    assert_eq!(inside(nodes, "", "ls /sys/firmware | wc -l"), "0");
    let read_only = inside(nodes, "", "echo x 2>&1 > /proc/sys/kernel/domainname; true");
    assert!(read_only.contains("Read-only file system"), "{read_only}");
}

fn privileged_and_devices(nodes: &Nodes) {
    assert!(
        inside(nodes, "", "mkdir /tmp/m && mount -t tmpfs none /tmp/m 2>&1; true")
            .contains("ermission denied")
            || inside(nodes, "", "mount -t tmpfs none /tmp 2>&1; true").contains("not permitted")
    );
    assert_eq!(inside(nodes, "--privileged", "mount -t tmpfs none /tmp && echo mounted"), "mounted");
    assert_eq!(
        inside(
            nodes,
            "--device /dev/null:/dev/nothing",
            "stat -c %t:%T /dev/nothing; echo x > /dev/nothing && echo wrote"
        ),
        "1:3\nwrote"
    );
    let refused =
        inside(nodes, "--cap-add MKNOD", "mknod /tmp/k c 1 2 && cat /tmp/k 2>&1 | head -c 60; true");
    assert!(refused.contains("not permitted"), "{refused}");
}

fn init_reaps_and_forwards(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "run",
        "-d",
        "--init",
        "--name",
        "family",
        IMAGE,
        "sh",
        "-c",
        "trap 'exit 8' TERM; while :; do sleep 0.05; done",
    ]);
    let first = docker.ok("exec family cat /proc/1/cmdline").replace('\0', " ");
    assert!(first.contains("init"), "{first}");
    wait::until("the signal is forwarded", Duration::from_secs(5), || {
        docker.ok("stop family");
        let code = docker.inspect("family")["State"]["ExitCode"].clone();
        if code == 8 {
            Ok(())
        } else {
            docker.ok("start family");
            Err(code.to_string())
        }
    });
    docker.ok("rm family");
}

fn pid_host_and_container_namespaces(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run -d --name owner {IMAGE} sleep 301"));
    assert!(inside(nodes, "--pid container:owner", "ps").contains("sleep 301"));
    assert!(inside(nodes, "--pid host", "ps").lines().count() > 5);
    let own = docker.ok("exec owner hostname -i");
    let seen = inside(nodes, "--network container:owner", "ip -4 -o addr show eth0");
    assert!(seen.contains(own.trim()), "{seen}");
    assert!(
        inside(nodes, "--ipc host --uts host", "hostname")
            .contains(docker.ok_args(&["info", "--format", "{{.Name}}"]).as_str())
    );
    docker.ok("rm -f owner");
}

fn other_runtimes_run_too(nodes: &Nodes) {
    let docker = nodes.docker(1);
    assert_eq!(docker.ok(&format!("run --rm --runtime runc {IMAGE} echo by runc")), "by runc");
    docker.ok(&format!("run -d --runtime runc --name foreign {IMAGE} sleep 300"));
    assert_eq!(docker.ok("exec foreign echo inside"), "inside");
    docker.ok("rm -f foreign");
    let refused = docker.fails(&format!("run --rm --runtime nonesuch {IMAGE} true"));
    assert!(refused.err.contains("nonesuch"), "{}", refused.err);
}

fn groups_come_from_the_image(nodes: &Nodes) {
    assert_eq!(inside(nodes, "--user user", "id -G"), "1000 2000");
    assert!(inside(nodes, "--group-add 77", "id -G").contains("77"));
}

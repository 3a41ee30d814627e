"""Compiles profiles of the OCI specification with libseccomp, reading them as runc does.

In: a JSON array of `linux.seccomp` documents. Out: for each an array of BPF instructions [code, yes, no, k], or null when
libseccomp refuses the profile because it contradicts itself.
`--known NAMES` prints those names that this libseccomp knows instead.
"""
import errno
import json
import struct
import sys
import tempfile

import seccomp
from seccomp import Arch, Arg, Attr, SyscallFilter

ACTIONS = {
    "SCMP_ACT_KILL": lambda n: seccomp.KILL,
    "SCMP_ACT_KILL_THREAD": lambda n: seccomp.KILL,
    "SCMP_ACT_KILL_PROCESS": lambda n: seccomp.KILL_PROCESS,
    "SCMP_ACT_TRAP": lambda n: seccomp.TRAP,
    "SCMP_ACT_ERRNO": seccomp.ERRNO,
    "SCMP_ACT_TRACE": seccomp.TRACE,
    "SCMP_ACT_ALLOW": lambda n: seccomp.ALLOW,
    "SCMP_ACT_LOG": lambda n: seccomp.LOG,
}
ARCHITECTURES = {"SCMP_ARCH_X86_64": Arch.X86_64, "SCMP_ARCH_X86": Arch.X86, "SCMP_ARCH_X32": Arch.X32}
OPERATORS = {
    "SCMP_CMP_NE": seccomp.NE, "SCMP_CMP_LT": seccomp.LT, "SCMP_CMP_LE": seccomp.LE, "SCMP_CMP_EQ": seccomp.EQ,
    "SCMP_CMP_GE": seccomp.GE, "SCMP_CMP_GT": seccomp.GT, "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ,
}


def action(name, number):
    return ACTIONS[name](errno.EPERM if number is None else number)


def argument(arg):
    if arg["op"] == "SCMP_CMP_MASKED_EQ":
        return Arg(arg["index"], seccomp.MASKED_EQ, arg["value"], arg.get("valueTwo", 0))
    return Arg(arg["index"], OPERATORS[arg["op"]], arg["value"])


def known(name):
    # __NR_SCMP_ERROR of seccomp.h; what other architectures have is another negative number.
    return seccomp.resolve_syscall(Arch(), name) != -1


def compile(profile):
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    filter = SyscallFilter(default)
    # Of another architecture libseccomp kills the thread unless told otherwise; Gantry kills the process.
    filter.set_attr(Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    for name in profile.get("architectures", []):
        if not filter.exist_arch(ARCHITECTURES[name]):
            filter.add_arch(ARCHITECTURES[name])
    for rule in profile.get("syscalls", []):
        answer = action(rule["action"], rule.get("errnoRet"))
        if answer == default:
            continue
        arguments = rule.get("args", [])
        repeated = len({a["index"] for a in arguments}) != len(arguments)
        for name in filter_known(rule["names"]):
            if repeated:
                for one in arguments:
                    filter.add_rule(answer, name, argument(one))
            else:
                filter.add_rule(answer, name, *map(argument, arguments))
    with tempfile.TemporaryFile() as file:
        filter.export_bpf(file)
        file.seek(0)
        return [list(one) for one in struct.iter_unpack("=HBBI", file.read())]


def compile_or_none(profile):
    try:
        return compile(profile)
    except RuntimeError as error:
        # -EEXIST: rules for a call that i386 has twice contradict each other.
        if "-17" not in str(error):
            raise
        return None


def filter_known(names):
    return [name for name in names if known(name)]


if sys.argv[1:2] == ["--known"]:
    json.dump(filter_known(json.load(sys.stdin)), sys.stdout)
else:
    json.dump([compile_or_none(profile) for profile in json.load(sys.stdin)], sys.stdout)

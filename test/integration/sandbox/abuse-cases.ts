import type { z } from "cjm-substrate/worker";
import type { RunOutput, runInputSchema } from "../../../workers/sandbox/schemas.ts";
import type { Status } from "../../../workers/sandbox/status.ts";
import { SYSCALL_NUMBERS, type SyscallName } from "../../../workers/sandbox/syscall-policy.ts";

export interface AbuseCase {
  readonly name: string;
  readonly input: z.input<typeof runInputSchema>;
  readonly status: Status;
  /** What else must hold of the result. */
  readonly result?: Partial<RunOutput>;
}

const number = (call: SyscallName): number =>
  SYSCALL_NUMBERS[call][process.arch === "arm64" ? 1 : 0] ?? -1;

const SYSCALL = `import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(n, *a):
    r = libc.syscall(ctypes.c_long(n), *[ctypes.c_long(x) for x in a])
    if r < 0:
        print(os.strerror(ctypes.get_errno()))
        sys.exit(9)
    return r
`;

const forbidden = (call: SyscallName, ...args: number[]): AbuseCase => ({
  name: `${call} is a forbidden call`,
  input: { code: `${SYSCALL}call(${[number(call), ...args].join(", ")})\nprint("allowed")` },
  status: "seccomp",
  result: { stdout: "", exit_code: null, signal: "SIGSYS" },
});

const refused = (name: string, code: string, says: string): AbuseCase => ({
  name,
  input: { code },
  status: "nonzero",
  result: { stdout: `${says}\n`, exit_code: 9 },
});

/** Tries to connect a socket; prints the error's name. */
const connect = (
  family: string,
  kind: string,
  address: string,
): string => `import socket, sys, errno
try:
    s = socket.socket(socket.${family}, socket.${kind}); s.settimeout(2); s.connect(${address})
    s.send(b"x")
    print("connected")
except OSError as e:
    print(errno.errorcode.get(e.errno, type(e).__name__)); sys.exit(9)`;

const attempt = (statement: string): string => `import os, sys, errno, socket
try:
    ${statement}
    print("done")
except OSError as e:
    print(errno.errorcode.get(e.errno)); sys.exit(9)`;

const small = { memory_mb: 64, wall_ms: 8_000 };

const resources: AbuseCase[] = [
  {
    name: "a fork bomb is stopped at the process limit",
    input: {
      code: "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
      limits: { pids: 32, wall_ms: 8_000 },
    },
    status: "pids",
  },
  {
    name: "a thread bomb is stopped at the process limit",
    input: {
      code: "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
      limits: { pids: 32, wall_ms: 8_000 },
    },
    status: "pids",
  },
  {
    name: "memory that is touched",
    input: { code: "a = []\nwhile True: a.append(bytearray(1 << 20))", limits: small },
    status: "oom",
  },
  {
    name: "memory that is mapped",
    input: {
      code: "import mmap\nm = mmap.mmap(-1, 1 << 29)\nfor i in range(0, 1 << 29, 4096): m[i] = 1",
      limits: small,
    },
    status: "oom",
  },
  {
    name: "memory of a child process",
    input: {
      code: "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x=bytearray(1<<28)'])\nprint('survived')",
      limits: small,
    },
    status: "oom",
  },
  {
    name: "memory as files in /dev/shm",
    input: {
      code: "f = open('/dev/shm/x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
      limits: { ...small, disk_mb: 512 },
    },
    status: "oom",
  },
  {
    name: "memory as an anonymous file",
    input: {
      code: "import os\nf = os.memfd_create('x')\nfor _ in range(60): os.write(f, bytes(1 << 20))\nm=[bytearray(1<<20) for _ in range(300)]",
      limits: small,
    },
    status: "oom",
  },
  {
    name: "a full disk",
    input: {
      code: "f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))",
      limits: { disk_mb: 8 },
    },
    status: "disk_limit",
  },
  {
    name: "a full disk in /tmp by fallocate",
    input: {
      code: "import os\nfd = os.open('/tmp/big', os.O_CREAT | os.O_WRONLY)\nfor i in range(9): os.posix_fallocate(fd, i << 20, 1 << 20)",
      limits: { disk_mb: 8 },
    },
    status: "disk_limit",
  },
  {
    name: "a million empty files",
    input: {
      code: "for i in range(1000000): open(f'f{i}', 'w').close()",
      limits: { disk_mb: 8, wall_ms: 20_000 },
    },
    status: "disk_limit",
  },
  {
    name: "a file larger than the disk",
    input: { language: "bash", code: "exec truncate -s 1T huge", limits: { disk_mb: 8 } },
    status: "disk_limit",
  },
  {
    name: "descriptors without end",
    input: { code: attempt("[os.dup(1) for _ in range(5000)]") },
    status: "nonzero",
    result: { stdout: "EMFILE\n" },
  },
  {
    name: "endless stdout",
    input: {
      code: "import os\nwhile True: os.write(1, b'y\\n' * 1000)",
      limits: { wall_ms: 1_500, output_bytes: 5_000 },
    },
    status: "output_limit",
    result: { stdout: "y\n".repeat(2_500), stdout_truncated: true, stderr_truncated: false },
  },
  {
    name: "endless stderr",
    input: {
      code: "import os\nwhile True: os.write(2, b'y\\n' * 1000)",
      limits: { wall_ms: 1_500, output_bytes: 5_000 },
    },
    status: "output_limit",
    result: { stderr: "y\n".repeat(2_500), stderr_truncated: true, stdout_truncated: false },
  },
  {
    name: "one line of 1 GB",
    input: {
      code: "import os\nchunk = b'x' * (1 << 20)\nfor _ in range(1024):\n  while chunk[os.write(1, chunk):]: break",
      limits: { output_bytes: 1_000, wall_ms: 60_000 },
    },
    status: "output_limit",
    result: { stdout: "x".repeat(1_000), exit_code: 0 },
  },
  {
    name: "output that is not UTF-8",
    input: { code: "import os; os.write(1, b'a\\xff\\xc3\\xa4\\n')" },
    status: "ok",
    result: {
      stdout: "a\\xffä\n",
      stdout_base64: Buffer.from("61ffc3a40a", "hex").toString("base64"),
    },
  },
];

const time: AbuseCase[] = [
  {
    name: "sleep",
    input: { code: "import time; time.sleep(60)", limits: { wall_ms: 300 } },
    status: "wall_timeout",
    result: { is_timed_out: true, exit_code: null },
  },
  {
    name: "a busy loop against the CPU limit",
    input: { code: "while True: pass", limits: { cpu_ms: 300, wall_ms: 20_000 } },
    status: "cpu_timeout",
    result: { is_timed_out: true },
  },
  {
    name: "two busy processes against the CPU limit of all together",
    input: {
      code: "import os\nos.fork()\nwhile True: pass",
      limits: { cpu_ms: 300, wall_ms: 20_000 },
    },
    status: "cpu_timeout",
  },
  {
    name: "a busy loop against the wall clock",
    input: { code: "while True: pass", limits: { cpu_ms: 20_000, wall_ms: 300 } },
    status: "wall_timeout",
  },
  {
    name: "a program that ignores every signal",
    input: {
      code: "import signal, time\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\ntime.sleep(60)",
      limits: { wall_ms: 300 },
    },
    status: "wall_timeout",
  },
  {
    name: "a program that stops itself",
    input: { code: "import os; os.kill(os.getpid(), 19)", limits: { wall_ms: 300 } },
    status: "wall_timeout",
  },
  {
    name: "a daemon that outlives its program",
    input: {
      code: "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(60)\n  os._exit(0)\nos.wait(); print('left')",
      limits: { wall_ms: 8_000 },
    },
    status: "ok",
    result: { stdout: "left\n" },
  },
  {
    name: "a grandchild that holds the output open",
    input: { language: "bash", code: "sleep 60 & echo done", limits: { wall_ms: 8_000 } },
    status: "ok",
    result: { stdout: "done\n" },
  },
  {
    name: "orphans one after the other, which are reaped",
    input: {
      // The dead count until they are reaped, so each is waited for.
      code: "import os, time\nfor _ in range(60):\n  r, w = os.pipe()\n  p = os.fork()\n  if p == 0:\n    q = os.fork()\n    if q == 0: os._exit(0)\n    os.write(w, str(q).encode())\n    os._exit(0)\n  os.waitpid(p, 0)\n  q = int(os.read(r, 20))\n  os.close(r); os.close(w)\n  while os.path.exists(f'/proc/{q}'): time.sleep(0.001)\nprint('fine')",
      limits: { pids: 16, wall_ms: 8_000 },
    },
    status: "ok",
    result: { stdout: "fine\n" },
  },
];

const network: AbuseCase[] = [
  refused("TCP to an address", connect("AF_INET", "SOCK_STREAM", "('1.1.1.1', 80)"), "ENETUNREACH"),
  refused("UDP to an address", connect("AF_INET", "SOCK_DGRAM", "('8.8.8.8', 53)"), "ENETUNREACH"),
  refused(
    "TCP over IPv6",
    connect("AF_INET6", "SOCK_STREAM", "('2606:4700::1111', 80)"),
    "ENETUNREACH",
  ),
  refused(
    "DNS",
    "import socket, sys\ntry:\n  socket.getaddrinfo('example.org', 80); print('found')\nexcept OSError as e:\n  print(type(e).__name__); sys.exit(9)",
    "gaierror",
  ),
  refused(
    "a Unix socket of the host",
    connect("AF_UNIX", "SOCK_STREAM", "'/run/dbus/system_bus_socket'"),
    "ENOENT",
  ),
  refused("AF_VSOCK", attempt("socket.socket(40, socket.SOCK_STREAM)"), "EAFNOSUPPORT"),
  refused("AF_ALG", attempt("socket.socket(38, socket.SOCK_SEQPACKET)"), "EAFNOSUPPORT"),
  refused("raw packets", attempt("socket.socket(17, socket.SOCK_RAW)"), "EAFNOSUPPORT"),
  refused(
    "netlink beyond routes",
    attempt("socket.socket(16, socket.SOCK_RAW, 9)"),
    "EPROTONOSUPPORT",
  ),
];

const files: AbuseCase[] = [
  refused("reading /etc/shadow", attempt("open('/etc/shadow')"), "ENOENT"),
  refused("reading the host's root folder", attempt("os.listdir('/home')"), "ENOENT"),
  refused("writing to the system", attempt("open('/usr/x', 'w')"), "EROFS"),
  refused("writing to the root folder", attempt("open('/x', 'w')"), "EROFS"),
  refused("writing to /dev", attempt("open('/dev/x', 'w')"), "EROFS"),
  refused("making a device", attempt("os.mknod('/work/sda', 0o60666, os.makedev(8, 0))"), "EPERM"),
  refused("the cgroup file system", attempt("os.listdir('/sys/fs/cgroup')"), "ENOENT"),
  {
    name: "kernel settings",
    input: {
      code: "import errno, sys\nfor p in ['/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/vm/drop_caches']:\n  try:\n    open(p, 'w').write('1'); print('wrote', p)\n  except OSError: print('refused')",
    },
    status: "ok",
    result: { stdout: "refused\nrefused\nrefused\n" },
  },
  {
    name: "a symbolic link as output",
    input: { code: "import os; os.symlink('/etc/passwd', 'out')", collect: ["out"] },
    status: "ok",
    result: { files: {}, files_refused: { out: "it is a symbolic link" } },
  },
  {
    name: "a linked folder on the way to an output",
    input: { code: "import os; os.symlink('/etc', 'd')", collect: ["d/passwd"] },
    status: "ok",
    result: { files: {}, files_refused: { "d/passwd": "a folder on its way is a link or a file" } },
  },
  {
    name: "a FIFO as output",
    input: { code: "import os; os.mkfifo('out')", collect: ["out"] },
    status: "ok",
    result: { files: {}, files_refused: { out: "it is a FIFO" } },
  },
  {
    name: "a socket as output",
    input: {
      code: "import socket; socket.socket(socket.AF_UNIX).bind('out')",
      collect: ["out"],
    },
    status: "ok",
    result: { files: {}, files_refused: { out: "it is a socket" } },
  },
  refused("a hard link to a host's file", attempt("os.link('/etc/passwd', '/work/out')"), "EXDEV"),
];

const privileges: AbuseCase[] = [
  {
    name: "the environment holds nothing of the worker",
    input: { code: "import os; print(sorted(os.environ))" },
    status: "ok",
    result: { stdout: "['HOME', 'LANG', 'PATH', 'TMPDIR']\n" },
  },
  {
    name: "the first process's environment holds nothing of the worker",
    input: {
      code: "try:\n  e = open('/proc/1/environ').read()\nexcept OSError: e = ''\nprint('SANDBOX_TEST_SECRET' in e)",
    },
    status: "ok",
    result: { stdout: "False\n" },
  },
  {
    name: "no descriptor of the worker is inherited",
    input: {
      code: "import os\nfor f in os.listdir('/proc/self/fd'):\n  if int(f) > 2 and os.path.exists(f'/proc/self/fd/{f}') and os.readlink(f'/proc/self/fd/{f}') != '/dev/null': print(f)",
    },
    status: "ok",
    result: { stdout: "" },
  },
  {
    name: "there is no terminal",
    input: { code: "try:\n  open('/dev/tty'); print('open')\nexcept OSError: print('none')" },
    status: "ok",
    result: { stdout: "none\n" },
  },
  {
    name: "no other process can be seen",
    input: {
      code: "import os; print(all(int(p) < 100 for p in os.listdir('/proc') if p.isdigit()))",
    },
    status: "ok",
    result: { stdout: "True\n" },
  },
  {
    name: "no capability is left and none can be gained",
    input: {
      language: "bash",
      code: "grep -E '^(CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t' ' '",
    },
    status: "ok",
    result: {
      stdout:
        "CapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapBnd: 0000000000000000\nCapAmb: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n",
    },
  },
  {
    name: "a setuid program gives nothing",
    input: {
      code: "import os, subprocess, stat\nassert os.stat('/usr/bin/su').st_mode & stat.S_ISUID\np = subprocess.Popen(['/usr/bin/su'], stdin=subprocess.PIPE)\nstatus = open(f'/proc/{p.pid}/status').read()\nprint([l.split()[1:] for l in status.splitlines() if l.startswith('Uid')])\np.kill()",
    },
    status: "ok",
    result: { stdout: "[['65534', '65534', '65534', '65534']]\n" },
  },
  refused("becoming root", attempt("os.setuid(0)"), "EPERM"),
  {
    name: "a namespace by clone",
    input: { code: `${SYSCALL}call(${number("clone")}, 0x10000011, 0, 0, 0, 0)\nprint("allowed")` },
    status: "seccomp",
  },
  {
    name: "clone3 is absent, so that clone's flags are seen",
    input: { code: `${SYSCALL}call(${number("clone3")}, 0, 0)` },
    status: "nonzero",
    result: { stdout: "Function not implemented\n" },
  },
  {
    name: "io_uring is absent",
    input: { code: `${SYSCALL}call(${number("io_uring_setup")}, 8, 0)` },
    status: "nonzero",
    result: { stdout: "Function not implemented\n" },
  },
  forbidden("ptrace", 0, 0, 0, 0),
  forbidden("process_vm_readv", 1, 0, 0, 0, 0, 0),
  forbidden("pidfd_getfd", 3, 0, 0),
  forbidden("unshare", 0x10_00_00_00),
  forbidden("setns", 3, 0),
  forbidden("mount", 0, 0, 0, 0, 0),
  forbidden("fsopen", 0, 0),
  forbidden("chroot", 0),
  forbidden("bpf", 0, 0, 0),
  forbidden("perf_event_open", 0, 0, -1, -1, 0),
  forbidden("userfaultfd", 0),
  forbidden("keyctl", 0, 0, 0),
  forbidden("add_key", 0, 0, 0, 0, 0),
  forbidden("clock_settime", 0, 0),
  forbidden("settimeofday", 0, 0),
  forbidden("open_by_handle_at", 0, 0, 0),
  forbidden("init_module", 0, 0, 0),
  forbidden("kexec_load", 0, 0, 0, 0),
  forbidden("reboot", 0, 0, 0, 0),
];

/** int 0x80 reaches the 32-bit table, where the same numbers mean other calls. */
const foreignAbi: AbuseCase[] =
  process.arch === "x64"
    ? [
        {
          name: "system calls of another architecture",
          input: {
            code: "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('b814000000cd80c3'))\nf = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nprint(f())",
          },
          status: "seccomp",
        },
        {
          name: "unshare by way of the x32 table",
          input: { code: `${SYSCALL}print(call(0x40000000 + 272, 0x10000000))` },
          status: "seccomp",
        },
      ]
    : [];

/** Programs that look like a limit was hit and were not limited. */
const twins: AbuseCase[] = [
  ...[1, 2, 124, 126, 127, 128, 130, 134, 137, 139, 143, 152, 153, 159, 255].map(
    (code): AbuseCase => ({
      name: `exit code ${code} is only an exit code`,
      input: {
        code: `import os, sys\nprint('Killed', file=sys.stderr, flush=True)\nos._exit(${code})`,
      },
      status: "nonzero",
      result: { exit_code: code, signal: null, is_timed_out: false },
    }),
  ),
  ...["SIGKILL", "SIGTERM", "SIGSEGV", "SIGABRT", "SIGPIPE", "SIGINT"].map((signal): AbuseCase => ({
    name: `a program that ends itself by ${signal} ended by a signal`,
    input: {
      code: `import os, signal\nsignal.signal(signal.${signal}, signal.SIG_DFL) if '${signal}' != 'SIGKILL' else 0\nos.kill(os.getpid(), signal.${signal})`,
    },
    status: "signal",
    result: { exit_code: null, signal },
  })),
  ...["SIGSYS", "SIGXCPU", "SIGXFSZ"].map((signal) =>
    refused(
      `a program cannot send itself ${signal}, the sign of a limit`,
      attempt(`os.kill(os.getpid(), __import__('signal').${signal})`),
      "EPERM",
    ),
  ),
  {
    name: "a program that catches MemoryError is not out of memory",
    input: {
      code: "try:\n  bytearray(1 << 60)\nexcept (MemoryError, OverflowError): print('caught')\nimport sys; sys.exit(137)",
    },
    status: "nonzero",
    result: { stdout: "caught\n", exit_code: 137 },
  },
  {
    name: "a program that reports a limit itself is not limited",
    input: { code: "print('status 0'); print('swept'); import sys; sys.exit(124)" },
    status: "nonzero",
    result: { stdout: "status 0\nswept\n", exit_code: 124, is_timed_out: false },
  },
];

/** The suite, the same for every backend. */
export const ABUSE_CASES: readonly AbuseCase[] = [
  ...resources,
  ...time,
  ...network,
  ...files,
  ...privileges,
  ...foreignAbi,
  ...twins,
];

/** One test of a system call's argument; its low 32 bits are compared. */
export interface Condition {
  readonly argument: number;
  readonly test: "equals" | "differs" | "has_any_bit";
  readonly value: number;
}

/** `errno` makes the call fail with that number; `kill` ends the process with SIGSYS. */
export type Verdict = "kill" | { readonly errno: number };

/** What happens to the named calls when every condition holds. */
export interface SyscallRule {
  readonly calls: readonly SyscallName[];
  readonly when?: readonly Condition[];
  readonly verdict: Verdict;
}

const EPERM = 1;
const ENOSYS = 38;
const EPROTONOSUPPORT = 93;
const EAFNOSUPPORT = 97;

const AF = { unix: 1, inet: 2, inet6: 10, netlink: 16 } as const;
/** All of CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const CLONE_NEW_ANY = 0x7e_02_00_00;
const TIOCSTI = 0x54_12;
const TIOCLINUX = 0x54_1c;
/** Signals the kernel sends for a broken limit; a guest that sends them itself is refused. */
const LIMIT_SIGNALS = [24, 25, 31] as const;

const SIGNAL_ARGUMENT = {
  kill: 1,
  tkill: 1,
  rt_sigqueueinfo: 1,
  pidfd_send_signal: 1,
  tgkill: 2,
  rt_tgsigqueueinfo: 2,
} as const;

/**
 * The deny list of every jail. What an honest program tries and can do without fails with an
 * errno; what only an attack or a mistake calls ends the process, so that it can be told.
 */
export const SYSCALL_RULES: readonly SyscallRule[] = [
  {
    verdict: "kill",
    calls: [
      "ptrace",
      "process_vm_readv",
      "process_vm_writev",
      "kcmp",
      "pidfd_getfd",
      "mount",
      "umount2",
      "pivot_root",
      "chroot",
      "move_mount",
      "open_tree",
      "fsopen",
      "fsconfig",
      "fsmount",
      "fspick",
      "mount_setattr",
      "unshare",
      "setns",
      "bpf",
      "perf_event_open",
      "userfaultfd",
      "open_by_handle_at",
      "fanotify_init",
      "add_key",
      "request_key",
      "keyctl",
      "init_module",
      "finit_module",
      "delete_module",
      "kexec_load",
      "kexec_file_load",
      "reboot",
      "swapon",
      "swapoff",
      "acct",
      "quotactl",
      "quotactl_fd",
      "iopl",
      "ioperm",
      "settimeofday",
      "clock_settime",
      "adjtimex",
      "clock_adjtime",
      "sethostname",
      "setdomainname",
      "lookup_dcookie",
      "nfsservctl",
      "modify_ldt",
    ],
  },
  // Absent, so that a runtime falls back to what it used before; clone's flags can be read, clone3's not.
  { verdict: { errno: ENOSYS }, calls: ["clone3", "memfd_secret", "vhangup"] },
  { verdict: { errno: ENOSYS }, calls: ["io_uring_setup", "io_uring_enter", "io_uring_register"] },
  { verdict: { errno: EPERM }, calls: ["syslog", "name_to_handle_at"] },
  {
    verdict: "kill",
    calls: ["clone"],
    when: [{ argument: 0, test: "has_any_bit", value: CLONE_NEW_ANY }],
  },
  {
    verdict: { errno: EAFNOSUPPORT },
    calls: ["socket", "socketpair"],
    when: Object.values(AF).map((value) => ({ argument: 0, test: "differs", value })),
  },
  {
    verdict: { errno: EPROTONOSUPPORT },
    calls: ["socket"],
    when: [
      { argument: 0, test: "equals", value: AF.netlink },
      { argument: 2, test: "differs", value: 0 },
    ],
  },
  ...[TIOCSTI, TIOCLINUX].map((value): SyscallRule => {
    return {
      verdict: { errno: EPERM },
      calls: ["ioctl"],
      when: [{ argument: 1, test: "equals", value }],
    };
  }),
  ...signalRules(),
];

function signalRules(): SyscallRule[] {
  return typedEntries(SIGNAL_ARGUMENT).flatMap(([call, argument]) =>
    LIMIT_SIGNALS.map((value): SyscallRule => {
      return {
        verdict: { errno: EPERM },
        calls: [call],
        when: [{ argument, test: "equals", value }],
      };
    }),
  );
}

function typedEntries<Name extends string, Value>(record: Record<Name, Value>): [Name, Value][] {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a literal has exactly its keys
  return Object.entries(record) as [Name, Value][];
}

/** Numbers per architecture, [x86-64, arm64], from the kernel's syscall tables; null where it has none. */
export const SYSCALL_NUMBERS = {
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  kcmp: [312, 272],
  pidfd_getfd: [438, 438],
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  move_mount: [429, 429],
  open_tree: [428, 428],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  unshare: [272, 97],
  setns: [308, 268],
  bpf: [321, 280],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  open_by_handle_at: [304, 265],
  name_to_handle_at: [303, 264],
  fanotify_init: [300, 262],
  add_key: [248, 217],
  request_key: [249, 218],
  keyctl: [250, 219],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  reboot: [169, 142],
  swapon: [167, 224],
  swapoff: [168, 225],
  acct: [163, 89],
  quotactl: [179, 60],
  quotactl_fd: [443, 443],
  iopl: [172, null],
  ioperm: [173, null],
  modify_ldt: [154, null],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  adjtimex: [159, 171],
  clock_adjtime: [305, 266],
  sethostname: [170, 161],
  setdomainname: [171, 162],
  lookup_dcookie: [212, 18],
  nfsservctl: [180, 42],
  vhangup: [153, 58],
  syslog: [103, 116],
  clone: [56, 220],
  clone3: [435, 435],
  memfd_secret: [447, 447],
  io_uring_setup: [425, 425],
  io_uring_enter: [426, 426],
  io_uring_register: [427, 427],
  socket: [41, 198],
  socketpair: [53, 199],
  ioctl: [16, 29],
  kill: [62, 129],
  tkill: [200, 130],
  tgkill: [234, 131],
  rt_sigqueueinfo: [129, 138],
  rt_tgsigqueueinfo: [297, 240],
  pidfd_send_signal: [424, 424],
} as const satisfies Readonly<Record<string, readonly [number, number | null]>>;

export type SyscallName = keyof typeof SYSCALL_NUMBERS;

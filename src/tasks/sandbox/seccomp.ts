/**
 * The seccomp filter of a sandbox, assembled by hand: system calls that no test program needs and that reach
 * beyond the namespaces or their limits fail with EPERM. It is a second wall behind bubblewrap's namespaces.
 * Formats: linux/filter.h (struct sock_filter), linux/seccomp.h (struct seccomp_data).
 */

interface Architecture {
  /** AUDIT_ARCH_* of linux/audit.h. */
  audit: number;
  /** x86-64 only: numbers from here on are the x32 interface. */
  x32?: number;
  clone: number;
  clone3: number;
  socket: number;
  denied: number[];
}

/** Same number on both: io_uring, new mount interface, memfd_secret, pidfd_getfd. */
const COMMON = [425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 447];

// In this order: ptrace, process_vm_readv, process_vm_writev, kcmp, unshare, setns, mount, umount2, pivot_root,
// add_key, request_key, keyctl, bpf, perf_event_open, userfaultfd, shmget, shmat, shmctl, msgget, semget,
// memfd_create, personality, kexec_load, init_module, finit_module, delete_module, syslog, open_by_handle_at,
// reboot, swapon, acct, quotactl. Shared memory and memfds would hold memory outside of the limits.
const ARCHITECTURES: Partial<Record<NodeJS.Architecture, Architecture>> = {
  x64: {
    audit: 0xc000003e,
    x32: 0x40000000,
    clone: 56,
    clone3: 435,
    socket: 41,
    denied: [
      101, 310, 311, 312, 272, 308, 165, 166, 155, 248, 249, 250, 321, 298, 323, 29, 30, 31, 68, 64, 319, 135,
      246, 175, 313, 176, 103, 304, 169, 167, 163, 179,
    ],
  },
  arm64: {
    audit: 0xc00000b7,
    clone: 220,
    clone3: 435,
    socket: 198,
    denied: [
      117, 270, 271, 272, 97, 268, 40, 39, 41, 217, 218, 219, 280, 241, 282, 194, 196, 195, 186, 190, 279, 92,
      104, 105, 273, 106, 116, 265, 142, 224, 89, 60,
    ],
  },
};

const LOAD = 0x20;
const JUMP_IF_EQUAL = 0x15;
const JUMP_IF_AT_LEAST = 0x35;
const JUMP_IF_ANY_BIT = 0x45;
const RETURN = 0x06;

const NUMBER = 0;
const ARCHITECTURE = 4;
const FIRST_ARGUMENT = 16;

const ALLOW = 0x7fff0000;
const KILL = 0x80000000;
const EPERM = 0x00050000 | 1;
const ENOSYS = 0x00050000 | 38;

/** CLONE_NEW*: new namespaces. */
const NEW_NAMESPACES = 0x7e020000;
const AF_UNIX = 1;

/** One instruction: operation, jumps if true and if false (relative), operand. */
type Instruction = [code: number, yes: number, no: number, operand: number];

/** Bytes of the filter; undefined where the processor is neither x86-64 nor arm64. */
export function seccompFilter(processor: NodeJS.Architecture = process.arch): Buffer | undefined {
  const architecture = ARCHITECTURES[processor];
  if (architecture === undefined) return undefined;
  const { audit, x32, clone, clone3, socket, denied } = architecture;
  const unless = (number: number, result: number): Instruction[] => [
    [JUMP_IF_EQUAL, 0, 1, number],
    [RETURN, 0, 0, result],
  ];
  const instructions: Instruction[] = [
    [LOAD, 0, 0, ARCHITECTURE],
    [JUMP_IF_EQUAL, 1, 0, audit],
    [RETURN, 0, 0, KILL],
    [LOAD, 0, 0, NUMBER],
    ...(x32 === undefined
      ? []
      : ([
          [JUMP_IF_AT_LEAST, 0, 1, x32],
          [RETURN, 0, 0, EPERM],
        ] as Instruction[])),
    ...[...denied, ...COMMON].flatMap((number) => unless(number, EPERM)),
    // Its flags lie in memory, where a filter cannot look; without it the C library takes clone.
    ...unless(clone3, ENOSYS),
    [JUMP_IF_EQUAL, 0, 4, clone],
    [LOAD, 0, 0, FIRST_ARGUMENT],
    [JUMP_IF_ANY_BIT, 0, 1, NEW_NAMESPACES],
    [RETURN, 0, 0, EPERM],
    [RETURN, 0, 0, ALLOW],
    // Sockets of other families than AF_UNIX: some, such as vsock, know no network namespaces.
    [JUMP_IF_EQUAL, 0, 3, socket],
    [LOAD, 0, 0, FIRST_ARGUMENT],
    [JUMP_IF_EQUAL, 1, 0, AF_UNIX],
    [RETURN, 0, 0, EPERM],
    [RETURN, 0, 0, ALLOW],
  ];
  return assembled(instructions);
}

function assembled(instructions: readonly Instruction[]): Buffer {
  const bytes = Buffer.alloc(instructions.length * 8);
  instructions.forEach(([code, yes, no, operand], i) => {
    bytes.writeUInt16LE(code, i * 8);
    bytes.writeUInt8(yes, i * 8 + 2);
    bytes.writeUInt8(no, i * 8 + 3);
    bytes.writeUInt32LE(operand, i * 8 + 4);
  });
  return bytes;
}

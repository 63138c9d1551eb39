/** The fields of struct seccomp_data that a filter reads. */
export interface SyscallAttempt {
  readonly number: number;
  readonly audit: number;
  readonly args?: readonly bigint[];
}

/** Runs a classic BPF filter as the kernel does (net/core/filter.c) and returns its verdict. */
export function runFilter(program: Buffer, attempt: SyscallAttempt): number {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(attempt.number, 0);
  data.writeUInt32LE(attempt.audit, 4);
  for (const [index, value] of (attempt.args ?? []).entries()) {
    data.writeBigUInt64LE(BigInt.asUintN(64, value), 16 + index * 8);
  }
  let accumulator = 0;
  for (let pc = 0; pc * 8 < program.length; pc += 1) {
    const code = program.readUInt16LE(pc * 8);
    const [whenTrue, whenFalse] = [program.readUInt8(pc * 8 + 2), program.readUInt8(pc * 8 + 3)];
    const value = program.readUInt32LE(pc * 8 + 4);
    if (code === 0x06) return value;
    if (code === 0x20) accumulator = data.readUInt32LE(value);
    else pc += holds(code, accumulator, value) ? whenTrue : whenFalse;
  }
  throw new RangeError("the filter ends without a verdict");
}

function holds(code: number, accumulator: number, value: number): boolean {
  if (code === 0x15) return accumulator === value;
  if (code === 0x35) return accumulator >= value;
  if (code === 0x45) return (accumulator & value) !== 0;
  throw new RangeError(`unknown instruction ${code}`);
}

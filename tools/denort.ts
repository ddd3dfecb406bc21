/**
 * Takes the Deno runtime (denort) out of a program that `deno compile` made.
 *
 * `deno compile` downloads the runtime it builds on from a host that build machines without
 * general internet do not reach; `DENORT_BIN` names a file instead. A compiled program carries
 * that file whole: the compiler appends its payload behind the section header table and changes
 * nothing before it (Deno 2.1 to 2.8).
 *
 * @module
 */

/** First bytes of what the compiler appends, ASCII. */
const PAYLOAD_MAGIC = new TextEncoder().encode("d3n0l4nd");
/** Size of a 64-bit ELF header, and so the offset of the program headers in a file that was only appended to. */
const ELF64_HEADER_BYTES = 64;
const SECTION_HEADER_OFFSET_AT = 0x28, SECTION_HEADER_SIZE_AT = 0x3a, SECTION_HEADER_COUNT_AT = 0x3c;
const PROGRAM_HEADER_OFFSET_AT = 0x20;

/**
 * Returns the bytes of the runtime inside `program`, as a view of the same memory.
 *
 * @param program A whole Linux program made by `deno compile`, Deno 2.1 to 2.8.
 * @returns The runtime as the Deno project published it.
 * @throws {Error} Where `program` is not such a file.
 */
export function recoverRuntime(program: Uint8Array): Uint8Array {
  const fail = (cause: string) => new Error(`Cannot recover the runtime: ${cause}`);
  const header = new DataView(program.buffer, program.byteOffset, program.byteLength);
  if (program.length < ELF64_HEADER_BYTES || header.getUint32(0) !== 0x7f454c46 || program[4] !== 2) {
    throw fail("not a 64-bit ELF file");
  }
  if (header.getBigUint64(PROGRAM_HEADER_OFFSET_AT, true) !== BigInt(ELF64_HEADER_BYTES)) {
    throw fail("the program headers were moved, as Deno 2.9 does, wanted Deno 2.1 to 2.8");
  }
  const end = Number(header.getBigUint64(SECTION_HEADER_OFFSET_AT, true)) +
    header.getUint16(SECTION_HEADER_SIZE_AT, true) * header.getUint16(SECTION_HEADER_COUNT_AT, true);
  if (end > program.length) throw fail(`the section headers end at ${end}, the file at ${program.length}`);
  if (!PAYLOAD_MAGIC.every((byte, i) => program[end + i] === byte)) throw fail("no payload behind the section headers");
  return program.subarray(0, end);
}

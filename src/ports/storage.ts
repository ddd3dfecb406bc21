/**
 * The storage port: the agent's small records, durable before they count.
 *
 * @module
 */

/** Keys to bytes. Implemented by `edge/disk` and by the simulator. */
export interface Store {
  /** Everything that is stored. */
  load(): ReadonlyMap<string, Uint8Array>;
  /**
   * Stores all puts or none, durably before it returns; `null` deletes.
   *
   * @throws {Error} When the disk fails or is full; nothing is changed then.
   */
  apply(puts: readonly (readonly [string, Uint8Array | null])[]): void;
  close(): void;
}

/** The runtime's source of randomness for TLS, made ready before a handshake waits for it. @module */

let ready: Promise<void> | undefined;

/**
 * Makes the random generator of the runtime's TLS library ready, on a thread of its own. Idempotent; never rejects.
 *
 * The library (AWS-LC) gathers entropy from the jitter of the CPU before it gives its first random bytes: 30 ms of
 * computing on a server core, more on a small board, in which a process that dials or takes its first QUIC connection
 * would do nothing else. Making an AES key asks the same generator, and not on the thread that runs the program. Where a
 * runtime has another generator, this costs some microseconds.
 */
export function prepareEntropy(): Promise<void> {
  ready ??= crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, true, ["encrypt"]).then(() => {}, () => {});
  return ready;
}

/**
 * Tells systemd how this service is: `sd_notify(3)` without its library.
 *
 * @module
 */

/** What systemd is told. Every call is cheap, never waits and never throws. */
export interface ServiceNotifier extends AsyncDisposable {
  /** Whether anybody listens: false outside of a systemd service of type notify. */
  readonly active: boolean;
  /** Milliseconds after which systemd takes a silent service for dead; missing where it does not watch. */
  readonly watchdogMs?: number;
  /** The service is up. */
  ready(status?: string): void;
  /** One line for `systemctl status`. */
  status(text: string): void;
  /** The service is still alive; due at least every half {@linkcode ServiceNotifier.watchdogMs}. */
  watchdog(): void;
  /** The service reads its configuration again; {@linkcode ServiceNotifier.ready} ends it. */
  reloading(): void;
  /** The service is on its way down. */
  stopping(status?: string): void;
  /** Asks for `ms` more until the next step of start or stop. */
  extendTimeout(ms: number): void;
}

/** Where the notifier finds its socket. */
export interface NotifierOptions {
  /**
   * `NOTIFY_SOCKET`: a path, or `@name` for an abstract socket, which Deno before 2.9 cannot speak to.
   *
   * @default from the environment
   */
  readonly socket?: string | undefined;
  /** `WATCHDOG_USEC`. @default from the environment */
  readonly watchdogUsec?: string | undefined;
  /** `WATCHDOG_PID`. @default from the environment */
  readonly watchdogPid?: string | undefined;
  /** Folder for a socket of our own, where the system has no abstract ones. @default "/tmp" */
  readonly folder?: string;
  /** Told once of the first message that could not be sent. */
  readonly onError?: (error: unknown) => void;
}

/** Longest wait for messages under way when closing, in milliseconds. */
const CLOSE_MS_MAX = 500;

/** Messages under way at most; more than that means that systemd does not read, and the newest is dropped. */
const UNDER_WAY_MAX = 16;

/**
 * Opens the way to systemd, or gives a notifier that does nothing where there is none.
 *
 * Call it once: it takes `NOTIFY_SOCKET` out of the environment, so that programs started later do not
 * speak for this service.
 */
export function openServiceNotifier(options: NotifierOptions = {}): ServiceNotifier {
  const env = readEnvironment(options);
  if (!env.socket) return SILENT;
  const path = env.socket.startsWith("@") ? `\0${env.socket.slice(1)}` : env.socket;
  if (!/^[/\0]/.test(path)) {
    options.onError?.(new Error(`Cannot notify "${env.socket}": wanted a path or an abstract name`));
    return SILENT;
  }
  try {
    const own = bindOwn(options.folder ?? "/tmp");
    return new SocketNotifier({ own, path, watchdogMs: env.watchdogMs, onError: options.onError });
  } catch (error) {
    options.onError?.(error);
    return SILENT;
  }
}

interface Environment {
  readonly socket: string | undefined;
  readonly watchdogMs: number | undefined;
}

function readEnvironment(options: NotifierOptions): Environment {
  const read = (name: string, given: string | undefined, isGiven: boolean): string | undefined => {
    if (isGiven) return given;
    const value = Deno.env.get(name);
    if (value !== undefined) Deno.env.delete(name);
    return value;
  };
  const socket = read("NOTIFY_SOCKET", options.socket, "socket" in options);
  const usec = Number(read("WATCHDOG_USEC", options.watchdogUsec, "watchdogUsec" in options));
  const pid = read("WATCHDOG_PID", options.watchdogPid, "watchdogPid" in options);
  const mine = pid === undefined || pid === String(Deno.pid);
  return { socket, watchdogMs: mine && Number.isFinite(usec) && usec >= 1000 ? Math.floor(usec / 1000) : undefined };
}

interface OwnSocket {
  readonly socket: Deno.DatagramConn;
  /** Path of the socket where it is a file. */
  readonly file?: string;
}

/** A socket to send from: an abstract one leaves nothing behind; its name counts for nothing. */
function bindOwn(folder: string): OwnSocket {
  const name = `mycelium-notify-${Deno.pid}-${crypto.randomUUID().slice(0, 8)}`;
  try {
    return { socket: Deno.listenDatagram({ transport: "unixpacket", path: `\0${name}` }) };
  } catch {
    const file = `${folder}/mycelium-notify-${Deno.pid}.sock`;
    // Process ids come back after a reboot, and a folder may outlive one.
    try {
      Deno.removeSync(file);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return { socket: Deno.listenDatagram({ transport: "unixpacket", path: file }), file };
  }
}

interface SocketNotifierOptions {
  readonly own: OwnSocket;
  readonly path: string;
  readonly watchdogMs: number | undefined;
  readonly onError: ((error: unknown) => void) | undefined;
}

class SocketNotifier implements ServiceNotifier {
  readonly active = true;
  readonly watchdogMs?: number;
  readonly #own: OwnSocket;
  readonly #path: string;
  readonly #onError: ((error: unknown) => void) | undefined;
  #last: Promise<void> = Promise.resolve();
  #underWay = 0;
  #reported = false;
  #closed = false;
  /** Whether the socket is gone. */
  #released = false;

  constructor(options: SocketNotifierOptions) {
    this.#own = options.own;
    this.#path = options.path;
    this.#onError = options.onError;
    if (options.watchdogMs !== undefined) this.watchdogMs = options.watchdogMs;
  }

  ready(status?: string): void {
    this.#send(["READY=1", ...statusLine(status)]);
  }

  status(text: string): void {
    this.#send(statusLine(text));
  }

  watchdog(): void {
    this.#send(["WATCHDOG=1"]);
  }

  reloading(): void {
    // CLOCK_MONOTONIC, which systemd wants here, is not to be had from the runtime: uptime is the same clock
    // as long as the machine did not sleep.
    const uptime = Number(Deno.readTextFileSync("/proc/uptime").split(" ")[0]);
    this.#send(["RELOADING=1", `MONOTONIC_USEC=${Math.round(uptime * 1e6)}`]);
  }

  stopping(status?: string): void {
    this.#send(["STOPPING=1", ...statusLine(status)]);
  }

  extendTimeout(ms: number): void {
    this.#send([`EXTEND_TIMEOUT_USEC=${Math.round(ms * 1000)}`]);
  }

  /** Waits a moment for messages under way, and closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    // Whoever does not read must not keep the service from ending.
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, CLOSE_MS_MAX));
    await Promise.race([this.#last, late]);
    clearTimeout(timer);
    this.#released = true;
    this.#own.socket.close();
    if (this.#own.file !== undefined) await Deno.remove(this.#own.file).catch(() => {});
  }

  #send(lines: readonly string[]): void {
    if (this.#closed || this.#underWay >= UNDER_WAY_MAX) return;
    const message = new TextEncoder().encode(lines.join("\n"));
    this.#underWay++;
    // One after the other: READY must not overtake a STATUS.
    this.#last = this.#last.then(async () => {
      try {
        if (this.#released) return;
        await this.#own.socket.send(message, { transport: "unixpacket", path: this.#path });
      } catch (error) {
        if (!this.#reported) this.#onError?.(error);
        this.#reported = true;
      } finally {
        this.#underWay--;
      }
    });
  }
}

function statusLine(text: string | undefined): string[] {
  return text === undefined ? [] : [`STATUS=${text.replace(/[\r\n]+/g, " ").slice(0, 500)}`];
}

const SILENT: ServiceNotifier = {
  active: false,
  ready: () => {},
  status: () => {},
  watchdog: () => {},
  reloading: () => {},
  stopping: () => {},
  extendTimeout: () => {},
  [Symbol.asyncDispose]: () => Promise.resolve(),
};

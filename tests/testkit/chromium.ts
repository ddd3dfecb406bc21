/**
 * A real browser for tests: headless Chromium over its DevTools protocol, with no library between.
 *
 * @module
 */

/** Where Debian and others put it. */
const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/snap/bin/chromium"];

/** Milliseconds for the start and for each command. */
const WAIT_MS = 20_000;

/** The browser's path (`CHROMIUM` in the environment goes first), or `undefined` where there is none. */
export function findChromium(): string | undefined {
  const wanted = Deno.env.get("CHROMIUM");
  return (wanted ? [wanted] : PLACES).find((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
}

/** How a page is shown. */
export interface PageOptions {
  readonly width: number;
  readonly height: number;
  readonly scheme?: "light" | "dark";
  /** @default true */
  readonly script?: boolean;
}

type Message = { readonly [key: string]: unknown };

interface Reply {
  readonly id?: number;
  readonly method?: string;
  readonly sessionId?: string;
  readonly params?: Message;
  readonly result?: Message;
  readonly error?: { readonly message: string };
}

/** A running browser. */
export class Browser implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #socket: WebSocket;
  readonly #profile: string;
  readonly #waiting = new Map<number, { resolve(result: Message): void; reject(error: Error): void; timer: unknown }>();
  readonly #listeners = new Set<(reply: Reply) => void>();
  #id = 0;

  private constructor(process: Deno.ChildProcess, socket: WebSocket, profile: string) {
    this.#process = process;
    this.#socket = socket;
    this.#profile = profile;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(String(data)));
  }

  /** Starts the browser at `path`. */
  static async launch(path: string): Promise<Browser> {
    const profile = await Deno.makeTempDir({ prefix: "mycelium-chromium-" });
    const process = new Deno.Command(path, {
      args: [
        ...[
          "--headless=new",
          "--no-sandbox",
          "--disable-gpu",
          "--disable-dev-shm-usage",
          "--no-first-run",
          "--disable-extensions",
        ],
        ...["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"],
        ...[`--user-data-dir=${profile}`, "about:blank"],
      ],
      stdout: "null",
      stderr: "null",
    }).spawn();
    try {
      const socket = await connect(`${profile}/DevToolsActivePort`);
      return new Browser(process, socket, profile);
    } catch (error) {
      process.kill("SIGKILL");
      await process.status;
      await Deno.remove(profile, { recursive: true });
      throw error;
    }
  }

  /** Opens an empty page. */
  async page(options: PageOptions): Promise<Page> {
    const { browserContextId } = await this.send("Target.createBrowserContext", {});
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, String(sessionId), String(browserContextId));
    await page.start(options);
    return page;
  }

  /** Sends a command of the DevTools protocol. */
  send(method: string, params: Message, sessionId?: string): Promise<Message> {
    const id = ++this.#id;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Error(`Chromium did not answer ${method} within ${WAIT_MS} ms`));
      }, WAIT_MS);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ id, method, params, ...(sessionId ? { sessionId } : {}) }));
    });
  }

  /** Calls `listener` on each event of a session. */
  listen(sessionId: string, listener: (method: string, params: Message) => void): void {
    this.#listeners.add((reply) => {
      if (reply.sessionId === sessionId && reply.method) listener(reply.method, reply.params ?? {});
    });
  }

  /** Ends the browser and forgets its profile. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#socket.onclose = () => resolve());
    await this.send("Browser.close", {}).catch(() => {});
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), 5_000);
    await this.#process.status;
    clearTimeout(timer);
    this.#socket.close();
    await closed;
    // Its helpers may write for a moment after it has ended.
    for (let tries = 0; tries < 20; tries++) {
      try {
        return await Deno.remove(this.#profile, { recursive: true });
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }

  #receive(reply: Reply): void {
    if (reply.id === undefined) {
      for (const listener of this.#listeners) listener(reply);
      return;
    }
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    clearTimeout(waiting?.timer as number);
    if (reply.error) waiting?.reject(new Error(reply.error.message));
    else waiting?.resolve(reply.result ?? {});
  }
}

/** One page, in a context of its own. */
export class Page implements AsyncDisposable {
  /** Console errors and warnings, exceptions, and what the browser itself reports. */
  readonly errors: string[] = [];
  /** Addresses of all requests. */
  readonly requests: string[] = [];
  readonly #browser: Browser;
  readonly #session: string;
  readonly #context: string;
  #loaded: (() => void) | undefined;

  /** Made by {@linkcode Browser.page}. */
  constructor(browser: Browser, session: string, context: string) {
    this.#browser = browser;
    this.#session = session;
    this.#context = context;
  }

  /** Sets the page up; called once. */
  async start(options: PageOptions): Promise<void> {
    const { width, height, scheme = "light", script = true } = options;
    this.#browser.listen(this.#session, (method, params) => this.#hear(method, params));
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await this.send(`${domain}.enable`, {});
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 600 });
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    if (!script) await this.send("Emulation.setScriptExecutionDisabled", { value: true });
  }

  /** Sends a command for this page. */
  send(method: string, params: Message): Promise<Message> {
    return this.#browser.send(method, params, this.#session);
  }

  /** Opens an address and waits until it has loaded. */
  async goto(url: string): Promise<void> {
    const loaded = new Promise<void>((resolve) => this.#loaded = resolve);
    const { errorText } = await this.send("Page.navigate", { url });
    if (errorText) throw new Error(`Cannot open ${url}: ${errorText}`);
    await loaded;
  }

  /** The value of an expression in the page; it must be JSON. A promise is awaited. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      returnByValue: true,
      awaitPromise: true,
    }) as { result?: { value?: T }; exceptionDetails?: { exception?: { description?: string }; text?: string } };
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result?.value as T;
  }

  /** Waits until an expression is true. */
  async until(expression: string, timeoutMs = 10_000): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (performance.now() < end) {
      if (await this.evaluate<boolean>(`Boolean(${expression})`)) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`Not true within ${timeoutMs} ms: ${expression}`);
  }

  /** A picture of the whole page as PNG. */
  async screenshot(): Promise<Uint8Array> {
    const { data } = await this.send("Page.captureScreenshot", { captureBeyondViewport: true });
    return Uint8Array.from(atob(String(data)), (char) => char.charCodeAt(0));
  }

  /** Closes the page. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.send("Target.disposeBrowserContext", { browserContextId: this.#context });
  }

  #hear(method: string, params: Message): void {
    if (method === "Page.loadEventFired") this.#loaded?.();
    if (method === "Network.requestWillBeSent") this.requests.push(String((params.request as Message).url));
    if (method === "Runtime.exceptionThrown") this.errors.push(JSON.stringify(params.exceptionDetails));
    if (method === "Log.entryAdded") this.errors.push(JSON.stringify(params.entry));
    if (method === "Runtime.consoleAPICalled" && ["error", "warning", "assert"].includes(String(params.type))) {
      this.errors.push(JSON.stringify(params.args));
    }
  }
}

async function connect(portFile: string): Promise<WebSocket> {
  const end = performance.now() + WAIT_MS;
  while (performance.now() < end) {
    const [port, path] = (await Deno.readTextFile(portFile).catch(() => "")).split("\n");
    if (port && path) {
      const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`);
      await new Promise<void>((resolve, reject) => {
        socket.onopen = () => resolve();
        socket.onerror = () => reject(new Error("Cannot speak to Chromium"));
      });
      return socket;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`Chromium did not start within ${WAIT_MS} ms`);
}

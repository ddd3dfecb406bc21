/**
 * A whole node in this process: real sockets on loopback with free ports, real SQLite in a temporary folder.
 *
 * @module
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Status } from "../../src/agent/status.ts";
import { type Config, configOfFlags, type LoadedConfig, resolveConfig } from "../../src/edge/config.ts";
import type { ExecLine } from "../../src/edge/http/control.ts";
import { runNode } from "../../src/edge/node.ts";
import { settle } from "./p2p.ts";

/** Settings of a node that talks to loopback only. */
export function loopbackConfig(name: string, flags: Readonly<Record<string, unknown>> = {}): LoadedConfig {
  return resolveConfig([configOfFlags({
    name,
    listen: ["127.0.0.1"],
    port: 0,
    "http.listen": "127.0.0.1:0",
    "discovery.mdns": false,
    "discovery.multicast": false,
    "discovery.broadcast": false,
    "log.level": "debug",
    "log.format": "json",
    "limits.drainMs": 5_000,
    ...flags,
  })]);
}

/** What the control socket answered. */
export interface Answered {
  readonly status: number;
  readonly ok: boolean;
  readonly result: unknown;
  readonly error: { readonly code: string; readonly message: string; readonly cure: string } | undefined;
}

/** Options of {@linkcode RunningNode.start}. */
export interface RunningNodeOptions {
  readonly stateDir: string;
  readonly name?: string;
  readonly form?: string;
  readonly invite?: string;
  readonly flags?: Readonly<Record<string, unknown>>;
  /** What SIGHUP reads; the configuration of the start unless given. */
  readonly reload?: () => Promise<LoadedConfig>;
}

/** A node that runs in this process. */
export class RunningNode implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly socket: string;
  readonly stateDir: string;
  statusUrl = "";
  nodeId = "";
  /** Exit code, or the error that the start ended with. */
  readonly ended: Promise<number>;
  readonly config: Config;
  readonly #stop = new AbortController();
  readonly #client: Deno.HttpClient;
  #closed = false;

  private constructor(options: RunningNodeOptions, listening: PromiseWithResolvers<void>) {
    const { stateDir, name = "alpha", form, invite } = options;
    this.stateDir = stateDir;
    this.socket = join(stateDir, "agent.sock");
    const loaded = loopbackConfig(name, options.flags);
    this.config = loaded.config;
    this.#client = Deno.createHttpClient({ proxy: { transport: "unix", path: this.socket } });
    this.ended = runNode({
      config: loaded.config,
      stateDir,
      socketPath: this.socket,
      ...(form ? { form: { name: form, approval: false } } : {}),
      ...(invite ? { invite } : {}),
      signal: this.#stop.signal,
      reloadConfig: options.reload ?? (() => Promise.resolve(loaded)),
      onListening: ({ nodeId, statusUrl }) => {
        this.nodeId = nodeId;
        this.statusUrl = statusUrl ?? "";
        listening.resolve();
      },
      writeLog: (line) => void this.lines.push(line),
    });
    this.ended.catch(listening.reject);
  }

  /** Starts a node and waits for its socket. */
  static async start(options: RunningNodeOptions): Promise<RunningNode> {
    const listening = Promise.withResolvers<void>();
    const node = new RunningNode(options, listening);
    try {
      await listening.promise;
    } catch (error) {
      node.#client.close();
      throw error;
    }
    return node;
  }

  /** Stops in order and returns the exit code. */
  async stop(): Promise<number> {
    this.#stop.abort();
    const code = await this.ended;
    this.#close();
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.ended.catch(() => {});
    this.#close();
    await settle();
  }

  #close(): void {
    if (!this.#closed) this.#client.close();
    this.#closed = true;
  }

  /** A request to the control socket. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(`http://localhost${path}`, { ...init, client: this.#client } as RequestInit);
  }

  async control(body: unknown): Promise<Answered> {
    const response = await this.fetch("/control", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
    const { ok, result, error } = await response.json();
    return { status: response.status, ok, result, error };
  }

  /** Asks and wants a yes. */
  async ask<T>(body: unknown): Promise<T> {
    const { ok, result, error } = await this.control(body);
    assert.ok(ok, JSON.stringify(error));
    return result as T;
  }

  async status(): Promise<Status> {
    return await (await this.fetch("/status")).json();
  }

  /** Runs a command; the lines of its answer. */
  async exec(body: unknown, signal?: AbortSignal): Promise<ExecLine[]> {
    const response = await this.fetch("/exec", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      ...(signal ? { signal } : {}),
    });
    const text = await response.text();
    if (response.status !== 200) return [{ type: "error", ...JSON.parse(text).error }];
    return text.trimEnd().split("\n").map((line) => JSON.parse(line));
  }

  /** Waits until the status says so. */
  async until(what: string, holds: (status: Status) => boolean, withinMs = 15_000): Promise<Status> {
    const endMs = Date.now() + withinMs;
    while (true) {
      const status = await this.status();
      if (holds(status)) return status;
      assert.ok(Date.now() < endMs, `${what}, within ${withinMs} ms: ${JSON.stringify(status.bootstrap)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/**
 * The dashboard: one page, rendered here, kept live by the `page` events of `/events`.
 *
 * Every figure comes from the {@linkcode Status}; nothing is loaded from elsewhere.
 *
 * @module
 */

import type {
  AgreementStatus,
  EventStatus,
  Failure,
  Health,
  InviteStatus,
  JoinStage,
  MemberStatus,
  PendingStatus,
  Status,
  TrustStatus,
  Waiting,
} from "../../agent/status.ts";
import type { Role } from "../../core/roles.ts";
import { HISTORY_SAMPLES_MAX, HISTORY_STEP_MS } from "../telemetry/history.ts";
import { DASHBOARD_SCRIPT } from "./dashboard_script.ts";
import { DASHBOARD_STYLE } from "./dashboard_style.ts";
import { bytes, coarse, count, duration, plural, relative, roundTrip } from "./format.ts";
import { type Html, html, type HtmlValue, raw } from "./html.ts";
import { plot, type PlotLine, plotTop, rates, web } from "./plots.ts";

/** Rows that a table shows at most; `/status` holds all. */
const ROWS_MAX = 100;

/** Events shown, newest first. */
const EVENTS_MAX = 30;

const ROLE_NAMES: Readonly<Record<Role, string>> = {
  sclerotium: "Sclerotium",
  rhizomorph: "Rhizomorph",
  hypha: "Hypha",
};

const STAGE_NAMES: Readonly<Record<JoinStage, string>> = {
  idle: "Not started",
  forming: "Forming a network",
  discovering: "Discovering",
  contacting: "Contacting",
  authenticating: "Authenticating",
  registering: "Registering",
  "awaiting-approval": "Awaiting approval",
  handoff: "Handoff",
  verifying: "Verifying",
  verified: "Verified",
  isolated: "Isolated",
};

const STAGE_SENTENCES: Readonly<Record<JoinStage, string>> = {
  idle: "The node has not begun to join a network.",
  forming: "The node is making a new network.",
  discovering: "The node is looking for its network.",
  contacting: "The node is calling the addresses that it found.",
  authenticating: "The node and a member are proving who they are.",
  registering: "The node is asking to be admitted.",
  "awaiting-approval": "An operator has to approve this node.",
  handoff: "The node is taking over what members know.",
  verifying: "The node is checking that the others see it.",
  verified: "The node is a member of its network.",
  isolated: "The node reaches nobody of its network and keeps trying.",
};

const MARK = raw(
  `<svg class="mark" viewBox="0 0 28 28" aria-hidden="true"><path d="M14 14Q10 9 5 8M14 14Q19 10 18 4M14 14Q20 15 24 12M14 14Q17 19 ` +
    `22 23M14 14Q11 19 12 25M14 14Q8 15 4 19"/><circle cx="14" cy="14" r="3.4"/><circle cx="5" cy="8" r="1.9"/><circle cx="18" ` +
    `cy="4" r="1.9"/><circle cx="24" cy="12" r="1.9"/><circle cx="22" cy="23" r="1.9"/><circle cx="12" cy="25" r="1.9"/><circle ` +
    `cx="4" cy="19" r="1.9"/></svg>`,
);

const ICON = "data:image/svg+xml," + encodeURIComponent(
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 28 28"><rect width="28" height="28" rx="8" fill="#2c6e49"/><path d="M14 ` +
    `14Q10 10 7 9M14 14Q18 11 18 6M14 14Q17 18 20 21M14 14Q11 18 11 22" fill="none" stroke="#fff" stroke-width="2"/><circle ` +
    `cx="14" cy="14" r="4" fill="#fff"/></svg>`,
);

/** The whole page. `nonce` allows its style and its script. */
export function page(status: Status, nonce: string): string {
  return "<!doctype html>\n" + html`
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width,initial-scale=1">
        <meta name="robots" content="noindex">
        <meta name="color-scheme" content="light dark">
        <meta name="theme-color" content="#f4f3ee" media="(prefers-color-scheme: light)">
        <meta name="theme-color" content="#10130f" media="(prefers-color-scheme: dark)">
        <title>${title(status)}</title>
        <link rel="icon" href="${ICON}">
        <style nonce="${nonce}">${raw(DASHBOARD_STYLE)}</style>
      </head>
      <body>
    ${mainPart(status)}
    <script nonce="${nonce}">${raw(DASHBOARD_SCRIPT)}</script>
      </body>
    </html>
  `.text;
}

/** What changes: everything that is seen. */
export function mainPart(status: Status): Html {
  return html`<div id="app" class="wrap" data-now="${status.nowMs}" data-title="${title(status)}">
${header(status)}
<main>
${hero(status)}
${incidentsCard(status)}
${pendingCard(status)}
${tiles(status)}
<div class="grid">
<div class="col">${membersCard(status)}${joinCard(status)}${discoveryCard(status)}${eventsCard(status)}${
    nodeCard(status)
  }</div>
<div class="col">${webCard(status)}${plotsCard(status)}${invitesCard(status)}${healthCard(status)}${
    agreementCard(status)
  }${primaryCard(status)}${sporesCard(status)}${seedsCard(status)}${refusalsCard(status)}</div>
</div>
</main>
<footer class="foot"><span>mycelium ${status.version.version} (${status.version.commit})</span><a href="status">status as JSON</a><a href="metrics">metrics</a><a href="readyz">readiness</a><a href="openapi.json">OpenAPI</a></footer>
</div>`;
}

function title(status: Status): string {
  const where = status.network?.name ?? "no network";
  return `${status.node.name} · ${where} · ${status.health.ready ? "ready" : "not ready"}`;
}

function header(status: Status): Html {
  const { network, node } = status;
  const mode = node.mode === "normal" ? "" : badge(node.mode, "warn");
  return html`
    <header
      class="top">${MARK}<div class="names"><h1>${network?.name ?? "No network yet"}</h1><p>${network
        ? html`<code title="${network.networkId}">${network.networkId.slice(0, 12)}</code>`
        : ""}<span>${node
        .name}</span><span>${ROLE_NAMES[
          node.role
        ]}</span>${mode}</p></div><div id="live" role="status" data-keep data-state="still"><i></i><span>Not live</span></div></header>
  `;
}

function hero(status: Status): Html {
  const { health, bootstrap } = status;
  const level: Health = health.ready ? health.health : "failed";
  const headline = !health.ready ? "Not ready" : level === "ok" ? "Ready" : "Ready, with trouble";
  const sign = level === "ok"
    ? "M7.5 12.4l3 3 6-6.4"
    : level === "degraded"
    ? "M12 7v6M12 16.6v.1"
    : "M8.5 8.5l7 7M15.5 8.5l-7 7";
  const blocked = bootstrap.stage === "verified" ? [] : bootstrap.failures.slice(0, 3);
  const columns = [
    health.reasons.length > 0
      ? html`
        <div>
          <h3>Why</h3>
          <ul>${health.reasons.map((reason) => html`<li class="why">${reason}</li>`)}</ul>
        </div>
      `
      : "",
    bootstrap.waitingFor.length > 0
      ? html`
        <div>
          <h3>Waiting for</h3>
          <ul>${bootstrap.waitingFor.map((one) => waitingItem(one, status.nowMs))}</ul>
        </div>
      `
      : "",
    blocked.length > 0
      ? html`
        <div>
          <h3>What would help</h3>
          <ul>${blocked.map((failure) => html`<li>${failure.cure}</li>`)}</ul>
        </div>
      `
      : "",
  ].filter((column) => column !== "");
  return html`
    <section class="card hero ${level}"
      aria-label="State"><h2><svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="12"/><path d="${sign}"/></svg>${headline}</h2><p class="lead">${STAGE_SENTENCES[
        bootstrap.stage
      ]} ${status.tolerance.note}</p>${columns.length > 0 ? html`<div class="columns">${columns}</div>` : ""}</section>
  `;
}

function waitingItem(waiting: Waiting, nowMs: number): Html {
  return html`<li>${waiting.what} <small>since ${span(nowMs - waiting.sinceMs)}${
    waiting.nextMs === undefined ? "" : html`, tried again ${ago(waiting.nextMs, nowMs)}`
  }</small></li>`;
}

/** Incidents that nobody has acknowledged: somebody has to look. */
function incidentsCard(status: Status): HtmlValue {
  const { latest = [], measures = [], open = 0 } = status.incidents ?? {};
  const shown = latest.filter((one) => one.state === "open").slice(0, 5);
  if (shown.length === 0) return "";
  const item = (one: typeof shown[number]) => {
    const show = `mycelium incident show ${one.id}`;
    const taken = measures.filter((measure) => measure.incident === one.id).map((measure) => measure.response);
    return html`
      <li id="i-${one.id}">
        <p><b>${one.title}</b>${taken.map((response) =>
          html`
            ${badge(response, "warn")}
          `
        )}</p>
        <p class="soft mono" title="${one.subject}">${shortenIds(one.subject)}</p>
        <p class="soft">${plural(one.count, "event")}, the last ${ago(one.lastMs, status.nowMs)}</p>
        <div class="command"><code>${show}</code>${copyButton(show)}</div>
      </li>
    `;
  };
  return html`
    <section class="card pending" aria-labelledby="h-incidents">
      <div class="head">
        <h2 id="h-incidents">${plural(open, "security incident")}</h2>
      </div>
      <ul>${shown.map(item)}</ul>
    </section>
  `;
}

function pendingCard(status: Status): HtmlValue {
  const { pending } = status;
  if (pending.length === 0) return "";
  return html`
    <section class="card pending" aria-labelledby="h-pending">
      <div class="head">
        <h2 id="h-pending">${pending.length === 1
          ? "A machine waits for your approval"
          : `${count(pending.length)} machines wait for your approval`}</h2>
      </div>
      <ul>${pending.slice(0, ROWS_MAX).map((one) => pendingItem(one, status.nowMs))}</ul>
    </section>
  `;
}

function pendingItem(one: PendingStatus, nowMs: number): Html {
  const approve = `mycelium node approve ${one.nodeId.slice(-8)}`;
  const able = one.capabilities;
  return html`
    <li id="p-${one.nodeId}">
      <p><b>${one.name}</b> wants to join as ${ROLE_NAMES[one.role]}, since ${ago(one.sinceMs, nowMs)}</p>
      <p class="soft">${plural(able.cpus, "processor")}, ${bytes(able.memoryBytes)} of memory, ${able.arch}, ${able
        .os}</p>
      <p class="soft mono" title="${one.address}">${shortenIds(one.address)}</p>
      <div class="command"><code>${approve}</code>${copyButton(approve)}</div>
      <p class="soft">Not yours? <code>mycelium node deny ${one.nodeId.slice(-8)}</code></p>
    </li>
  `;
}

function tiles(status: Status): Html {
  const { tolerance, credential, nowMs } = status;
  const tally = countStates(status.members);
  const alive = tally.self + tally.alive;
  const present = status.members.length - tally.left;
  const trouble = [
    tally.suspect > 0 ? plural(tally.suspect, "suspect", "suspect") : "",
    tally.dead > 0 ? plural(tally.dead, "dead", "dead") : "",
    tally.left > 0 ? plural(tally.left, "left", "left") : "",
  ].filter((part) => part !== "").join(", ");
  const measured = status.members.flatMap((member) => member.path?.rttMs ?? []).sort((a, b) => a - b);
  const median = measured[Math.floor((measured.length - 1) / 2)];
  const tile = (label: string, value: HtmlValue, note: HtmlValue) =>
    html`
      <div class="card tile">
        <dt>${label}</dt>
        <dd>
          <div class="value">${value}</div>
          <div class="note">${note}</div>
        </dd>
      </div>
    `;
  return html`<dl class="tiles">${
    tile(
      "Members",
      html`${count(alive)} <small>of ${count(present)} alive</small>`,
      trouble || (present > 1 ? "everyone answers" : present === 1 ? "this node" : "none yet"),
    )
  }${
    tile(
      "Tolerance",
      html`f = ${tolerance.crashFaults}`,
      tolerance.members === 0
        ? "no network yet"
        : tolerance.members === 1
        ? "one node alone"
        : `${plural(tolerance.crashFaults, "node")} may stop, ${count(tolerance.byzantineFaults)} may lie`,
    )
  }${
    tile(
      "Credential",
      credential ? html`${coarse(credential.expiresMs - nowMs)} <small>left</small>` : "none",
      credential ? html`renews ${ago(credential.renewAtMs, nowMs)}` : "comes with membership",
    )
  }${
    tile(
      "Round trip",
      median === undefined ? "–" : roundTrip(median),
      median === undefined
        ? "no other node"
        : html`median of ${plural(measured.length, "path")}, worst ${roundTrip(measured.at(-1) ?? 0)}`,
    )
  }${
    tile(
      "Up for",
      span(status.process.uptimeMs),
      html`${plural(status.traffic.channels, "channel")}, ${plural(status.process.openFiles, "file")} open`,
    )
  }</dl>`;
}

const STATE_ORDER: Readonly<Record<MemberStatus["state"], number>> = {
  self: 0,
  suspect: 1,
  dead: 2,
  alive: 3,
  left: 4,
};

const STATE_TONES: Readonly<Record<MemberStatus["state"], Tone>> = {
  self: "good",
  alive: "good",
  suspect: "warn",
  dead: "bad",
  left: "still",
};

function membersCard(status: Status): Html {
  const members = [...status.members].sort((a, b) =>
    STATE_ORDER[a.state] - STATE_ORDER[b.state] || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
  );
  const more = members.length - ROWS_MAX;
  return html`
    <section class="card o1"
      aria-labelledby="h-members"><div class="head"><h2 id="h-members">Members</h2><p>${status.network
        ? html`epoch ${status.network.authority.epoch}, ${plural(status.network.authority.issuers.length, "issuer")}`
        : ""}</p></div>${members.length === 0
        ? html`
          <p
            class="empty">None yet. The node is not in a network: <code>mycelium init</code> makes one, <code>mycelium join &lt;invite&gt;</code> enters one.</p>
        `
        : table(
          "Members of the network as this node sees them",
          ["Node", "State", "Role", "Path", "Last seen", "Version"],
          members.slice(0, ROWS_MAX).map((member) =>
            memberRow(member, status.nowMs, status.trust?.scores.find((one) => one.nodeId === member.nodeId))
          ),
        )}${more > 0
        ? html`<p class="empty">and ${count(more)} more in <a href="status">/status</a></p>`
        : ""}${status.members.length === 1 ? inviteHint() : ""}</section>
  `;
}

/** A score for people. */
function percent(ppm: number): string {
  return `${Math.round(ppm / 10_000)} %`;
}

function inviteHint(): Html {
  return html`
    <div class="trouble">
      <h3>Add a second machine</h3>
      <p class="soft">Make an invite here, then type it there.</p>
      <div class="command"><code>mycelium invite create</code>${copyButton("mycelium invite create")}</div>
      <div class="command"><code>mycelium join &lt;invite&gt;</code></div>
    </div>
  `;
}

function memberRow(member: MemberStatus, nowMs: number, trust: TrustStatus["scores"][number] | undefined): Html {
  const marks = [
    trust?.banned
      ? html`
        <span class="tag" title="It has said two things at once: trusted no more">banned</span>
      `
      : "",
    member.issuer
      ? html`
        <span class="tag" title="May admit nodes">issuer</span>
      `
      : "",
    member.drained
      ? html`
        <span class="tag" title="Takes no new work">drained</span>
      `
      : "",
  ];
  const path = member.path;
  return html`
    <tr role="row" id="m-${member.nodeId}" class="${member.state === "left" ? "faded" : ""}">
      <td role="cell" class="first">
        <b>${member.name}</b>${marks}<span class="sub"><span class="mono" title="${member.nodeId}">…${member.nodeId
          .slice(-8)}</span><span class="phone">, version ${member.version}</span></span>
      </td>
      <td role="cell" class="state">${badge(
        member.state === "self" ? "this node" : member.state,
        STATE_TONES[member.state],
      )}${member.state === "suspect" || member.state === "dead"
        ? html`<span class="sub">for ${span(nowMs - member.stateSinceMs)}</span>`
        : member.unreachable
        ? html`<span class="sub">but not from here</span>`
        : ""}</td>
      <td role="cell" data-label="Role">${ROLE_NAMES[member.role]}<span class="sub">${member.pool}</span></td>
      <td role="cell" data-label="Path" class="${path ? "" : "hide"}">${pathText(member)}</td>
      <td role="cell" data-label="Last seen" class="nowrap ${member.state === "self"
        ? "hide"
        : ""}">${member.state === "self" ? html`<span class="soft">–</span>` : ago(member.lastSeenMs, nowMs)}</td>
      <td role="cell" class="hide-phone">${member.version}${trust
        ? html`<span class="sub" title="Agreed score; ${percent(trust.localPpm)} as this node has seen it">trust ${
          percent(
            trust.agreedPpm,
          )
        }</span>`
        : ""}</td>
    </tr>
  `;
}

function pathText(member: MemberStatus): Html {
  const { path, state } = member;
  if (!path) return html`<span class="soft">${state === "self" ? "–" : "none"}</span>`;
  const kind = `${path.transport.toUpperCase()}, ${path.direction}`;
  return path.rttMs === undefined
    ? html`<span class="soft">not measured</span><span class="sub">${kind}</span>`
    : html`<span class="nowrap">${roundTrip(path.rttMs)}</span><span class="sub">${kind}</span>`;
}

function joinCard(status: Status): Html {
  const { bootstrap, nowMs } = status;
  const first = bootstrap.timeline[0]?.atMs ?? bootstrap.sinceMs;
  const last = bootstrap.timeline.length - 1;
  const took = (bootstrap.timeline.at(-1)?.atMs ?? first) - first;
  const steps = bootstrap.timeline.slice(-16).map(({ stage, atMs }, index, shown) => {
    const current = index === shown.length - 1 && stage !== "verified";
    return html`<li class="${current ? stage === "isolated" ? "isolated" : "now" : ""}">${STAGE_NAMES[stage]}<small>${
      index === 0 ? html`${ago(atMs, nowMs)}` : `+${duration(Math.max(1, atMs - (shown[index - 1]?.atMs ?? atMs)))}`
    }</small></li>`;
  });
  const summary = bootstrap.stage === "verified" && last >= 0
    ? html`${bootstrap.timeline[0]?.stage === "forming" ? "formed" : "joined"} in ${duration(Math.max(1, took))}`
    : html`${STAGE_NAMES[bootstrap.stage]} since ${span(nowMs - bootstrap.sinceMs)}, attempt ${bootstrap.attempt}`;
  return html`
    <section class="card o4"
      aria-labelledby="h-join"><div class="head"><h2 id="h-join">Joining</h2><p>${summary}</p></div>${steps.length > 0
        ? html`<ol class="steps">${steps}</ol>`
        : html`<p class="empty">Not begun.</p>`}${bootstrap.failures.length > 0
        ? html`
          <div class="trouble">
            <h3>What failed, and what would cure it</h3>
            <ul>${bootstrap.failures.slice(0, 10).map((failure) => failureItem(failure, nowMs))}</ul>
          </div>
        `
        : ""}</section>
  `;
}

function failureItem(failure: Failure, nowMs: number): Html {
  return html`<li><b>${failure.what}</b> <span class="soft nowrap">${ago(failure.atMs, nowMs)}${
    failure.count > 1 ? `, ${count(failure.count)} times` : ""
  }</span><div class="soft">${
    STAGE_NAMES[failure.stage]
  }, <code>${failure.code}</code>: <code title="${failure.tried}">${
    shortenIds(failure.tried)
  }</code></div><p class="cure"><b>Cure</b> ${failure.cure}</p></li>`;
}

function discoveryCard(status: Status): Html {
  const { sources, candidates } = status.bootstrap;
  const rows = candidates.slice(0, ROWS_MAX).map((one) =>
    html`
      <tr role="row">
        <td role="cell" class="wide mono" title="${one.address}">${shortenIds(one.address)}</td>
        <td role="cell" data-label="Source">${one.source}</td>
        <td role="cell" data-label="Authority" class="end">${one.authority}</td>
        <td role="cell" data-label="Known">${one.verification}</td>
        <td role="cell" data-label="Age" class="nowrap">${span(one.ageMs)}</td>
        <td role="cell" data-label="Failures" class="end">${count(one.failures)}</td>
      </tr>
    `
  );
  return html`
    <section class="card o6"
      aria-labelledby="h-discovery"><div class="head"><h2 id="h-discovery">Discovery</h2><p>${plural(
        candidates.length,
        "candidate",
      )}</p></div>${sources.length === 0 ? html`<p class="empty">No source is on.</p>` : table(
        "Discovery sources",
        ["Source", "State", "Detail", "Asked again"],
        sources.map((source) =>
          html`
            <tr role="row">
              <td role="cell" class="first"><b>${source.source}</b></td>
              <td role="cell" class="state">${badge(source.state, sourceTone(source.state))}</td>
              <td role="cell" class="wide">${source.detail}</td>
              <td role="cell" data-label="Asked again" class="nowrap ${source.nextMs === undefined
                ? "hide"
                : ""}">${source.nextMs === undefined
                ? html`<span class="soft">–</span>`
                : ago(source.nextMs, status.nowMs)}</td>
            </tr>
          `
        ),
      )}${rows.length > 0
        ? html`<details><summary>${plural(candidates.length, "candidate")}</summary>${
          table("Candidates", ["Address", "Source", "Authority", "Known", "Age", "Failures"], rows, [
            "Authority",
            "Failures",
          ])
        }</details>`
        : ""}</section>
  `;
}

function sourceTone(state: string): Tone {
  if (/^(ok|on|listening|active|fresh|running|ready)$/.test(state)) return "good";
  return /^(off|idle|disabled|silent|none)$/.test(state) ? "still" : /fail|error|down/.test(state) ? "bad" : "warn";
}

const EVENT_TONES: Readonly<Record<EventStatus["level"], Tone>> = {
  debug: "still",
  info: "still",
  warn: "warn",
  error: "bad",
};

function eventsCard(status: Status): Html {
  const events = [...status.events].reverse().sort((a, b) => b.atMs - a.atMs).slice(0, EVENTS_MAX);
  return html`<section class="card o8" aria-labelledby="h-events"><h2 id="h-events">Recent events</h2>${
    events.length === 0
      ? html`<p class="empty">None.</p>`
      : html`<ol class="events">${
        events.map((event) =>
          html`<li>${ago(event.atMs, status.nowMs)}${badge(event.level, EVENT_TONES[event.level])}<p>${
            shortenIds(event.message)
          } <code class="soft">${event.event}</code></p></li>`
        )
      }</ol>`
  }</section>`;
}

function webCard(status: Status): Html {
  return html`<section class="card o2" aria-labelledby="h-web"><h2 id="h-web">The network from here</h2>${
    web(status.members)
  }</section>`;
}

function plotsCard(status: Status): Html {
  const samples = status.history ?? [];
  const { nowMs } = status;
  const spanMs = HISTORY_STEP_MS * (HISTORY_SAMPLES_MAX - 1);
  const received: PlotLine = { label: "in", style: "first", points: rates(samples, (sample) => sample.bytesIn) };
  const sent: PlotLine = { label: "out", style: "second", points: rates(samples, (sample) => sample.bytesOut) };
  const memory: PlotLine = {
    label: "memory",
    style: "first",
    points: samples.map((sample) => ({ atMs: sample.atMs, value: sample.rssBytes })),
  };
  const cpu: PlotLine = {
    label: "CPU",
    style: "first",
    // Milliseconds of CPU per second are tenths of a percent.
    points: rates(samples, (sample) => sample.cpuMs).map((point) => ({ ...point, value: point.value / 10 })),
  };
  const now = (line: PlotLine) => line.points.at(-1)?.value ?? 0;
  const figure = (
    name: string,
    value: HtmlValue,
    lines: readonly PlotLine[],
    topMin: number,
    show: (value: number) => string,
  ) => {
    const top = plotTop(lines, topMin);
    const description = `${name}, last 5 minutes: ` +
      lines.map((line) => `${line.label} now ${show(now(line))}`).join(", ") + `; scale up to ${show(top)}`;
    return html`<figure><figcaption><span>${name}</span><span class="value">${value}</span></figcaption>${
      plot(lines, { nowMs, spanMs, topMin, description })
    }<div class="axis" aria-hidden="true"><span>5 min ago</span><span>top ${
      show(top)
    }</span><span>now</span></div></figure>`;
  };
  const perSecond = (value: number) => `${bytes(value)}/s`;
  const percent = (value: number) => `${value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
  return html`<section class="card o3" aria-labelledby="h-plots"><h2 id="h-plots">Last five minutes</h2>${
    samples.length < 2
      ? html`<p class="empty">Measuring; the first plot appears in a few seconds.</p>`
      : html`<div class="plots">${
        figure(
          "Traffic",
          html`
            <span class="nowrap"><i class="key"></i>in ${perSecond(now(received))}</span> <span
              class="nowrap"><i class="key second"></i>out ${perSecond(now(sent))}</span>
          `,
          [received, sent],
          1024,
          perSecond,
        )
      }${figure("Resident memory", bytes(status.process.rssBytes), [memory], 64 * 2 ** 20, bytes)}${
        figure("CPU", percent(now(cpu)), [cpu], 5, percent)
      }</div>`
  }</section>`;
}

const INVITE_TONES: Readonly<Record<InviteStatus["state"], Tone>> = {
  open: "good",
  "used-up": "still",
  expired: "still",
  revoked: "bad",
};

function invitesCard(status: Status): Html {
  const invites = [...status.invites].sort((a, b) =>
    Number(b.state === "open") - Number(a.state === "open") || b.createdMs - a.createdMs
  ).slice(0, 20);
  return html`
    <section class="card o5"
      aria-labelledby="h-invites"><div class="head"><h2 id="h-invites">Invites</h2><p>${plural(
        status.invites.filter((invite) => invite.state === "open").length,
        "open",
        "open",
      )}</p></div>${invites.length === 0
        ? html`<p class="empty">None. <code>mycelium invite create</code> makes one.</p>`
        : html`<ul class="rows">${
          invites.map((invite) =>
            html`
              <li>
                <div
                  class="grow"><code>${invite.id}</code><small>${invite.role
                    ? ROLE_NAMES[invite.role]
                    : "any role"}, pool ${invite.pool}${invite.approval ? ", with approval" : ""}</small><small>${count(
                      invite.usesLeft,
                    )} of ${plural(invite.uses, "use")} left, ${invite.expiresMs > status.nowMs
                    ? "expires"
                    : "expired"} ${ago(invite.expiresMs, status.nowMs)}</small></div>
                <div>${badge(invite.state.replace("-", " "), INVITE_TONES[invite.state])}</div>
              </li>
            `
          )
        }</ul>`}</section>
  `;
}

const HEALTH_TONES: Readonly<Record<Health, Tone>> = { ok: "good", degraded: "warn", failed: "bad" };

function healthCard(status: Status): Html {
  return html`
    <section class="card o7" aria-labelledby="h-health">
      <h2 id="h-health">Components</h2>
      <ul class="rows">${status.health.components.map((component) =>
        html`
          <li>
            <div class="grow">${component.name}${component.reason ? html`<small>${component.reason}</small>` : ""}</div>
            <div>${badge(component.health, HEALTH_TONES[component.health])}</div>
          </li>
        `
      )}${status.assignments.slice(0, 20).map((one) =>
        html`
          <li>
            <div class="grow">${one.service} <code class="soft">${one.id}</code>${one.reason
              ? html`<small>${one.reason}</small>`
              : ""}</div>
            <div>${badge(one.state, one.state === "running" ? "good" : one.state === "failed" ? "bad" : "warn")}</div>
          </li>
        `
      )}</ul>
    </section>
  `;
}

const SEED_TONES: Readonly<Record<string, Tone>> = {
  ok: "good",
  waiting: "good",
  idle: "warn",
  copy: "warn",
  behind: "warn",
  failed: "bad",
};

/** Files and servers outside the network; nothing where none is configured. */
function seedsCard(status: Status): Html {
  const { sources = [], targets = [] } = status.seeds ?? {};
  if (sources.length + targets.length === 0) return html``;
  const rows = [
    ...targets.map((one) => ({ ...one, where: one.to, what: "published", atMs: one.publishedMs ?? 0 })),
    ...sources.map((one) => ({ ...one, where: one.from, what: "read" })),
  ];
  return html`
    <section class="card o9" aria-labelledby="h-seeds">
      <h2 id="h-seeds">Seeds outside</h2>
      <ul class="rows">${rows.map((one) =>
        html`
          <li>
            <div class="grow"><code>${one.where}</code><small>${one.kind ?? ""} ${one.what} ${one.atMs > 0
              ? ago(one.atMs, status.nowMs)
              : "never"}${one.reason ? html`, ${one.reason}` : ""}</small></div>
            <div>${badge(one.state, SEED_TONES[one.state] ?? "warn")}</div>
          </li>
        `
      )}</ul>
    </section>
  `;
}

const TIER_TEXT = {
  primary: "agreed on by the primaries",
  seed: "from a seed of an issuer",
  latent: "told by members",
} as const;

/** Who agrees on what the network knows; nothing where this node holds no replica. */
const QUORUM: { readonly [H in AgreementStatus["health"]]: readonly ["good" | "warn" | "bad", string] } = {
  full: ["good", "every voter answers"],
  sound: ["good", "one more may fail"],
  fragile: ["warn", "no further one may fail"],
  lost: ["bad", "nothing can be decided"],
};

function agreementCard(status: Status): Html {
  const { agreement } = status;
  if (!agreement) return html``;
  const name = (nodeId: string) => status.members.find((one) => one.nodeId === nodeId)?.name ?? nodeId.slice(-8);
  const { voters, tolerated, emergency } = agreement;
  const [tone, meaning] = QUORUM[agreement.health];
  const bears = tolerated > 0 ? `${tolerated} of ${voters.length} may lie or fail` : "no fault is borne";
  return html`
    <section class="card o8" aria-labelledby="h-agreement">
      <div class="head">
        <h2 id="h-agreement">Agreement</h2>
        <p>electorate ${count(agreement.epoch)}, ${bears}</p>
      </div>
      <ul class="rows">
        <li>
          <div class="grow">${count(agreement.seats)} of ${count(agreement.seatsOf)} seats answer<small>${count(
            agreement.seatsNeeded,
          )} decide: ${meaning}</small></div>
          <div>${badge(agreement.health, tone)}</div>
        </li>
        ${emergency
          ? html`
            <li>
              <div class="grow">emergency: ${emergency.reason}<small>without ${emergency.without.map(name).join(
                ", ",
              )}</small></div>
              <div>${badge("look", "warn")}</div>
            </li>
          `
          : ""}${voters.map((one) =>
            html`
              <li>
                <div class="grow">${name(one.nodeId)}<small>${count(one.seats)} of ${count(
                  agreement.seatsOf,
                )} seats</small></div>
                <div>${one.answers ? "" : badge("silent", "warn")}</div>
              </li>
            `
          )}${agreement.recent.slice(-3).reverse().map((one) =>
            html`
              <li>
                <div class="grow">${one.keys.join(" ") || "nothing"}<small>${one.class}, by ${name(
                  one.proposer,
                )}, signed by ${count(one.signers)} of ${count(one.voters)}</small></div>
              </li>
            `
          )}
      </ul>
    </section>
  `;
}

function primaryCard(status: Status): Html {
  const { primary } = status;
  if (!primary || primary.role === "client") return html``;
  const name = (nodeId: string) => status.members.find((one) => one.nodeId === nodeId)?.name ?? nodeId.slice(-8);
  const rows = [
    ...primary.voters.map((one) => [one, "voter"] as const),
    ...primary.learners.map((one) => [one, "learner"] as const),
  ];
  return html`
    <section class="card o8" aria-labelledby="h-primary">
      <div class="head">
        <h2 id="h-primary">Primaries</h2>
        <p>term ${count(primary.term)}, entry ${count(primary.appliedIndex)} of ${count(primary.commitIndex)}</p>
      </div>
      <ul class="rows">${primary.leader === undefined
        ? html`
          <li>
            <div class="grow">nobody leads<small>nothing can be agreed on</small></div>
            <div>${badge("look", "bad")}</div>
          </li>
        `
        : ""}${rows.map(([one, part]) =>
          html`
            <li>
              <div class="grow">${name(one)}<small>${part}</small></div>
              <div>${one === primary.leader ? badge("leads", "good") : ""}</div>
            </li>
          `
        )}</ul>
    </section>
  `;
}

/** What the network knows, by where it comes from; nothing before this node is a member. */
function sporesCard(status: Status): Html {
  const { spores } = status;
  if (!spores) return html``;
  const { asking, confirmed, denied, unanswered } = spores.suspects;
  const doubted = asking + denied + unanswered;
  const last = spores.lastSync;
  return html`
    <section class="card o8" aria-labelledby="h-spores">
      <div class="head">
        <h2 id="h-spores">Records</h2>
        <p>${bytes(spores.bytes)}${spores.partial ? ", a part of them" : ""}</p>
      </div>
      <ul class="rows">${(["primary", "seed", "latent"] as const).map((tier) =>
        html`<li><div class="grow">${tier}<small>${TIER_TEXT[tier]}</small></div><span>${
          count(spores.tiers[tier])
        }</span></li>`
      )}${doubted + confirmed === 0 ? "" : html`
        <li>
          <div class="grow">suspicious<small>${count(confirmed)} confirmed and used, ${count(
            doubted,
          )} not used</small></div>
          <div>${badge(doubted > 0 ? "look" : "ok", doubted > 0 ? "warn" : "good")}</div>
        </li>
      `}${spores.equivocations === 0 ? "" : html`
        <li>
          <div class="grow">authors that contradict themselves</div>
          <div>${badge(count(spores.equivocations), "bad")}</div>
        </li>
      `}${last
        ? html`
          <li>
            <div class="grow">compared ${ago(last.atMs, status.nowMs)}<small>${plural(
              last.differing,
              "difference",
            )}, ${plural(spores.runs, "comparison")} since start</small></div>
            <div>${badge(last.ok ? "ok" : "failed", last.ok ? "good" : "warn")}</div>
          </li>
        `
        : ""}</ul>
    </section>
  `;
}

function refusalsCard(status: Status): Html {
  const refusals = Object.entries(status.refusals).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  return html`
    <section class="card o9"
      aria-labelledby="h-refusals"><div class="head"><h2 id="h-refusals">Refused</h2><p>since start</p></div>${refusals
          .length === 0
        ? html`<p class="empty">Nothing.</p>`
        : html`<ul class="rows">${
          refusals.slice(0, 20).map(([reason, times]) =>
            html`<li><code class="grow">${reason}</code><span>${count(times)}</span></li>`
          )
        }</ul>`}</section>
  `;
}

function nodeCard(status: Status): Html {
  const { node, network, process, traffic, config, version } = status;
  const able = node.capabilities;
  const facts: readonly (readonly [string, HtmlValue])[] = [
    ["Node", html`<code>${node.nodeId}</code>`],
    ["Addresses", node.addresses.map((address) => html`<div class="mono">${address.replace(/\/p2p\/.*$/, "")}</div>`)],
    ["Machine", `${plural(able.cpus, "processor")}, ${able.arch}`],
    ["Memory", bytes(able.memoryBytes)],
    ["Disk", `${bytes(able.diskFreeBytes)} free of ${bytes(able.diskBytes)}`],
    ["System", `${able.os}, ${able.kernel}`],
    ["Pool", node.pool],
    ...(network
      ? [
        ["Genesis key", network.genesisKey === "here" ? "on this node" : "offline"],
        ["Revocations", count(network.revocations)],
        ["Profile", `version ${network.profileSeq}`],
      ] as const
      : []),
    [
      "Configuration",
      html`version ${config.version}${
        config.tryUntilMs === undefined
          ? ""
          : html`, taken back ${ago(config.tryUntilMs, status.nowMs)} unless confirmed`
      }`,
    ],
    ["Received", html`${bytes(traffic.bytesIn)}, ${plural(traffic.callsIn, "call")}`],
    ["Sent", html`${bytes(traffic.bytesOut)}, ${plural(traffic.callsOut, "call")}`],
    ["Timer lag", process.loopLagMs ? `${process.loopLagMs.mean} ms, worst ${process.loopLagMs.max} ms` : "–"],
    ["Process", `${process.pid}, ${duration(process.cpuMs)} of CPU`],
    ["Runtime", version.runtime],
  ];
  return html`
    <section class="card o10" aria-labelledby="h-node">
      <h2 id="h-node">This node</h2>
      <dl class="facts">${facts.map(([name, value]) =>
        html`
          <div class="${name === "Node" || name === "Addresses" ? "whole" : ""}">
            <dt>${name}</dt>
            <dd>${value}</dd>
          </div>
        `
      )}</dl>
    </section>
  `;
}

type Tone = "good" | "warn" | "bad" | "still";

/** A text with the ids of nodes by their last 8 characters, as they are named elsewhere on the page. */
function shortenIds(text: string): string {
  return text.replace(/\b12D3KooW[1-9A-HJ-NP-Za-km-z]{36}([1-9A-HJ-NP-Za-km-z]{8})\b/g, "…$1");
}

function badge(text: string, tone: Tone): Html {
  return html`<span class="badge ${tone}">${text}</span>`;
}

function copyButton(text: string): Html {
  return html`<button type="button" data-copy="${text}">Copy</button>`;
}

/** A moment, said relative to now; the script keeps it true. */
function ago(atMs: number, nowMs: number): Html {
  const date = new Date(atMs);
  const iso = Number.isNaN(date.getTime()) ? "" : date.toISOString();
  return html`<time datetime="${iso}" title="${iso}" data-at="${atMs}">${relative(atMs, nowMs)}</time>`;
}

function span(ms: number): Html {
  return html`<span class="nowrap">${duration(ms)}</span>`;
}

/** A table that becomes a list of cards where there is no room; roles keep it a table for screen readers. */
function table(
  caption: string,
  columns: readonly string[],
  rows: readonly Html[],
  numeric: readonly string[] = [],
): Html {
  return html`
    <table class="stack" role="table">
      <caption class="hidden">${caption}</caption>
      <thead role="rowgroup">
        <tr role="row">${columns.map((column) =>
          html`<th role="columnheader" scope="col" class="${numeric.includes(column) ? "end" : ""}">${column}</th>`
        )}</tr>
      </thead>
      <tbody role="rowgroup">${rows}</tbody>
    </table>
  `;
}

function countStates(members: readonly MemberStatus[]): Record<MemberStatus["state"], number> {
  const tally = { self: 0, alive: 0, suspect: 0, dead: 0, left: 0 };
  for (const member of members) tally[member.state]++;
  return tally;
}

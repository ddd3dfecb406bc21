/**
 * Drawings of the dashboard as inline SVG: the small plots and the picture of the network.
 *
 * @module
 */

import type { HistorySample, MemberStatus } from "../../agent/status.ts";
import { type Html, html, raw } from "./html.ts";

/** One line of a plot: values over time, oldest first. */
export interface PlotLine {
  /** For the legend. */
  readonly label: string;
  readonly points: readonly { readonly atMs: number; readonly value: number }[];
  readonly style: "first" | "second";
}

/** How a plot is drawn. */
export interface PlotOptions {
  /** Right edge. */
  readonly nowMs: number;
  /** Width of the plot in milliseconds. */
  readonly spanMs: number;
  /** Least top of the scale, so that noise around zero stays small. */
  readonly topMin: number;
  /** What the plot shows, for those who do not see it. */
  readonly description: string;
}

const WIDTH = 300;
const HEIGHT = 60;

/** Rates per second between neighbouring samples; a counter that fell belongs to a new run and is left out. */
export function rates(
  samples: readonly HistorySample[],
  read: (sample: HistorySample) => number,
): { readonly atMs: number; readonly value: number }[] {
  const points: { readonly atMs: number; readonly value: number }[] = [];
  samples.forEach((sample, index) => {
    const before = samples[index - 1];
    if (!before || sample.atMs <= before.atMs || read(sample) < read(before)) return;
    points.push({ atMs: sample.atMs, value: (read(sample) - read(before)) * 1000 / (sample.atMs - before.atMs) });
  });
  return points;
}

/** Top of a plot's scale: the largest value, or `topMin` where that is more. */
export function plotTop(lines: readonly PlotLine[], topMin: number): number {
  return lines.reduce((top, line) => line.points.reduce((most, point) => Math.max(most, point.value), top), topMin);
}

/** A plot; it stretches to the width that it is given. */
export function plot(lines: readonly PlotLine[], options: PlotOptions): Html {
  const { nowMs, spanMs, topMin, description } = options;
  const top = plotTop(lines, topMin) * 1.08;
  const x = (atMs: number) => round(WIDTH - (nowMs - atMs) / spanMs * WIDTH);
  const y = (value: number) => round(HEIGHT - value / top * (HEIGHT - 2) - 1);
  const drawn = lines.map(({ points, style }) => {
    const inside = points.filter((point) => nowMs - point.atMs <= spanMs);
    const [first, last] = [inside[0], inside.at(-1)];
    if (!first || !last) return "";
    const line = inside.map((point) => `${x(point.atMs)},${y(point.value)}`).join(" ");
    return `<polygon class="area ${style}" points="${x(first.atMs)},${HEIGHT} ${line} ${x(last.atMs)},${HEIGHT}"/>` +
      `<polyline class="line ${style}" points="${line}"/>`;
  });
  return html`
    <svg class="plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img"
      aria-label="${description}">${raw(
        `<path class="rule" d="M0 ${HEIGHT / 2}H${WIDTH}"/><path class="base" d="M0 ${HEIGHT - 0.5}H${WIDTH}"/>` +
          drawn.join(""),
      )}</svg>
  `;
}

const WEB_WIDTH = 340;
const WEB_HEIGHT = 250;

/** Members drawn at most; the table holds all. */
const WEB_MEMBERS_MAX = 40;

/** The network as this node sees it: itself in the middle, threads to the members. */
export function web(members: readonly MemberStatus[]): Html {
  const me = members.find((member) => member.state === "self");
  const others = members.filter((member) => member.state !== "self" && member.state !== "left").slice(
    0,
    WEB_MEMBERS_MAX,
  );
  const [cx, cy] = [WEB_WIDTH / 2, WEB_HEIGHT / 2 - 4];
  const labels = others.length <= 12;
  const places = others.map((member, index) => {
    const angle = (index / Math.max(1, others.length)) * 2 * Math.PI - Math.PI / 2 + 0.35;
    // Every second one nearer, so that names do not meet.
    const far = others.length > 6 && index % 2 ? 0.72 : 1;
    return {
      member,
      x: round(cx + Math.cos(angle) * (labels ? 118 : 145) * far),
      y: round(cy + Math.sin(angle) * 92 * far),
      bend: index % 2 ? 16 : -16,
    };
  });
  const threads = places.map(({ member, x, y, bend }) => {
    const [mx, my] = [(cx + x) / 2, (cy + y) / 2];
    const length = Math.hypot(x - cx, y - cy) || 1;
    const control = `${round(mx - (y - cy) / length * bend)} ${round(my + (x - cx) / length * bend)}`;
    return html`
      <path class="thread ${member.state}" d="M${cx} ${cy}Q${control} ${x} ${y}" />
    `;
  });
  const dots = places.map(({ member, x, y }) =>
    html`<g class="dot ${member.state}"><circle cx="${x}" cy="${y}" r="${member.role === "hypha" ? 5 : 7}"/>${
      labels
        ? html`<text x="${x}" y="${y > cy ? y + 20 : y - 13}" text-anchor="middle">${shorten(member.name)}</text>`
        : ""
    }</g>`
  );
  const spores = others.length > 0 ? "" : raw(
    [[-94, -42], [88, -52], [104, 44], [-84, 56], [6, -82], [-6, 84]]
      .map(([dx = 0, dy = 0], index) =>
        `<path class="thread none" d="M${cx} ${cy}Q${cx + dx / 2 - dy / 7} ${cy + dy / 2 + dx / 7} ${cx + dx} ${
          cy + dy
        }"/>` +
        `<circle class="spore" cx="${cx + dx}" cy="${cy + dy}" r="${2 + index % 2}"/>`
      ).join(""),
  );
  return html`
    <svg class="web" viewBox="0 0 ${WEB_WIDTH} ${WEB_HEIGHT}" role="img"
      aria-label="${webDescription(
        members,
      )}">${spores}${threads}${dots}<g class="dot self"><circle class="halo" cx="${cx}" cy="${cy}" r="17"/><circle cx="${cx}" cy="${cy}" r="10"/>${me
        ? html`<text x="${cx}" y="${cy + 32}" text-anchor="middle">${shorten(me.name)}</text>`
        : ""}</g></svg>
  `;
}

function webDescription(members: readonly MemberStatus[]): string {
  const others = members.filter((member) => member.state !== "self");
  if (others.length === 0) return "This node alone";
  return "This node and " + others.map((member) => `${member.name} (${member.state})`).join(", ").slice(0, 500);
}

function shorten(name: string): string {
  return name.length > 13 ? `${name.slice(0, 12)}…` : name;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/**
 * The dashboard in a real browser, phone-sized and desktop-sized.
 *
 * `SCREENSHOTS=<folder>` keeps pictures of every view.
 */

import assert from "node:assert/strict";
import type { Status } from "../../src/agent/status.ts";
import { createStatusApp } from "../../src/edge/http/app.ts";
import { serveStatus } from "../../src/edge/http/server.ts";
import { Browser, findChromium, type Page, type PageOptions } from "../testkit/chromium.ts";
import {
  fixtureNodeId,
  FixtureSource,
  isolatedStatus,
  singleNodeStatus,
  troubledStatus,
} from "../testkit/status_fixture.ts";

const PHONE = { width: 390, height: 844 };
const DESKTOP = { width: 1280, height: 800 };

const chromium = findChromium();
if (!chromium) {
  console.error(
    "SKIPPED: the dashboard in a browser. There is no Chromium here: apt-get install -y chromium, or set CHROMIUM.",
  );
}

function browserTest(name: string, run: (browser: Browser) => Promise<void>): void {
  Deno.test({
    name,
    ignore: chromium === undefined,
    fn: async () => {
      await using browser = await Browser.launch(chromium ?? "");
      await run(browser);
    },
  });
}

interface Served extends AsyncDisposable {
  readonly url: string;
  readonly source: FixtureSource;
}

function serve(make: (nowMs: number) => Status): Served {
  const source = new FixtureSource(make(Date.now()));
  const server = serveStatus({
    port: 0,
    app: (guard) =>
      createStatusApp({
        getStatus: source.getStatus,
        subscribe: source.subscribe,
        events: { statusMsMin: 50 },
        ...guard,
      }),
  });
  return { url: server.url, source, [Symbol.asyncDispose]: () => server.stop(1_000) };
}

/** What every view must fulfil, whatever it shows. */
function assertSound(page: Page, url: string, label: string): void {
  assert.deepEqual(page.errors, [], `${label}: the console is clean`);
  const elsewhere = page.requests.filter((one) => !one.startsWith(`${url}/`) && !one.startsWith("data:"));
  assert.deepEqual(elsewhere, [], `${label}: nothing is loaded from elsewhere`);
}

/** Elements that stick out of the window, and text that is cut off. */
const OVERFLOW = `(() => {
  const out = [];
  // Not innerWidth: a phone zooms out to show what is too wide, and that grows with it.
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) out.push("page " + document.documentElement.scrollWidth);
  for (const element of document.querySelectorAll("#app *")) {
    const box = element.getBoundingClientRect();
    if (box.width === 0 || element.closest(".hidden, thead, svg")) continue;
    if (box.right > width + 0.5 || box.left < -0.5) out.push(element.tagName + "." + element.className + " " + box.right);
    if (element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline") {
      out.push("cut " + element.tagName + "." + element.className + " " + element.textContent.slice(0, 40));
    }
  }
  return out;
})()`;

/** Text whose contrast with its ground is below 4.5 to 1 (WCAG 2.2 AA). */
const CONTRAST = `(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const low = new Set();
  const walker = document.createTreeWalker(document.getElementById("app"), NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest(".hidden")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(element.closest("svg") ? style.fill : style.color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.add(element.tagName + "." + element.className.baseVal + element.className + " " + ratio.toFixed(2));
  }
  return [...low];
})()`;

/** What a screen reader or a keyboard would miss. */
const ACCESS = `(() => {
  const faults = [];
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  if (new Set(ids).size !== ids.length) faults.push("an id twice");
  if (!document.documentElement.lang) faults.push("no language");
  if (document.querySelectorAll("h1").length !== 1 || !document.querySelector("main")) faults.push("no h1 or main");
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption?.textContent) faults.push("a table without caption");
    const columns = table.querySelectorAll("thead th[scope=col]").length;
    for (const row of table.querySelectorAll("tbody tr")) if (row.cells.length !== columns) faults.push("a row with " + row.cells.length + " of " + columns + " cells");
  }
  for (const section of document.querySelectorAll("section")) {
    const label = section.getAttribute("aria-label") || document.getElementById(section.getAttribute("aria-labelledby"))?.textContent;
    if (!label) faults.push("a section without a name");
  }
  for (const svg of document.querySelectorAll("svg")) {
    if (!svg.getAttribute("aria-label") && svg.getAttribute("aria-hidden") !== "true") faults.push("a drawing without words");
  }
  for (const target of document.querySelectorAll("button, summary")) {
    const box = target.getBoundingClientRect();
    if (box.height && box.height < 24) faults.push("a target of " + box.height + " px");
  }
  let level = 0;
  for (const heading of document.querySelectorAll("h1,h2,h3")) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) faults.push("heading " + heading.textContent + " skips a level");
    level = next;
  }
  return faults;
})()`;

const VIEWS: readonly (readonly [string, (nowMs: number) => Status])[] = [
  ["single", singleNodeStatus],
  ["trouble", troubledStatus],
  ["isolated", isolatedStatus],
];

browserTest(
  "[9.1d] [11.1e] the dashboard fits a phone and a desktop, light and dark, readable, from its own origin only",
  async (browser) => {
    const folder = Deno.env.get("SCREENSHOTS");
    for (const [name, make] of VIEWS) {
      await using served = serve(make);
      for (const size of [PHONE, DESKTOP]) {
        for (const scheme of ["light", "dark"] as const) {
          const label = `${name}-${size.width}-${scheme}`;
          await using page = await browser.page({ ...size, scheme });
          await page.goto(`${served.url}/`);
          await page.until(`document.getElementById("live").dataset.state === "live"`);
          await page.evaluate(`document.querySelectorAll("details").forEach((one) => one.open = true)`);
          assert.deepEqual(await page.evaluate(OVERFLOW), [], `${label}: nothing overflows`);
          assert.deepEqual(await page.evaluate(CONTRAST), [], `${label}: contrast`);
          assert.deepEqual(await page.evaluate(ACCESS), [], `${label}: accessible`);
          assertSound(page, served.url, label);
          if (folder) await Deno.writeFile(`${folder}/${label}.png`, await page.screenshot());
        }
      }
    }
  },
);

browserTest("the checks of layout, contrast and access see a fault that is planted", async (browser) => {
  await using served = serve(singleNodeStatus);
  await using page = await browser.page(PHONE);
  await page.goto(`${served.url}/`);
  await page.until(`document.getElementById("live").dataset.state === "live"`);
  await page.evaluate(`(async () => {
    const wide = document.createElement("div");
    wide.style.width = "500px";
    wide.textContent = "wide";
    const pale = document.createElement("p");
    pale.style.color = "#a0a0a0";
    pale.textContent = "pale";
    document.querySelector("main").append(wide, pale, document.createElement("table"), document.createElement("section"));
    await fetch("http://127.0.0.1:9/elsewhere").catch(() => {});
    return true;
  })()`);
  assert.equal((await page.evaluate<string[]>(OVERFLOW)).filter((one) => one.startsWith("DIV. ")).length, 1);
  assert.equal((await page.evaluate<string[]>(CONTRAST)).length, 1);
  assert.equal((await page.evaluate<string[]>(ACCESS)).length, 2);
  assert.throws(() => assertSound(page, served.url, "planted"), /console is clean/, "the policy stopped the request");
});

browserTest(
  "[11.1e] what changes arrives by server-sent events, without a reload, and open details and focus stay",
  async (browser) => {
    await using served = serve(singleNodeStatus);
    await using page = await browser.page(PHONE);
    await page.goto(`${served.url}/`);
    await page.until(`document.getElementById("live").dataset.state === "live"`);
    assert.match(await page.evaluate("document.title"), /ready/);
    assert.equal(await page.evaluate(`document.querySelectorAll("tr[id]").length`), 1);
    await page.evaluate(`window.mark = document.querySelector("h1"); document.querySelector("footer a").focus()`);

    served.source.status = troubledStatus(Date.now());
    served.source.emit({ type: "status" });
    await page.until(`document.querySelectorAll("tr[id]").length === 8`);
    const text = await page.evaluate<string>("document.body.innerText");
    assert.match(text, /van-2/);
    assert.match(text, new RegExp(`mycelium node approve ${fixtureNodeId("porch-camera").slice(-8)}`));
    assert.equal(await page.evaluate(`window.mark === document.querySelector("h1")`), true, "the page was not rebuilt");
    assert.equal(await page.evaluate(`document.activeElement.textContent`), "status as JSON");

    await page.evaluate(`document.querySelector("details").open = true`);
    served.source.status = { ...troubledStatus(Date.now()), refusals: { "fresh-reason": 7 } };
    served.source.emit({ type: "status" });
    await page.until(`document.body.innerText.includes("fresh-reason")`);
    assert.equal(await page.evaluate(`document.querySelector("details").open`), true);
    assert.equal(await page.evaluate(`document.body.innerText.includes("beacon-bad-mac")`), false, "what went is gone");

    served.source.status = isolatedStatus(Date.now());
    served.source.emit({ type: "status" });
    await page.until(`document.title.includes("not ready")`);
    assertSound(page, served.url, "live");
  },
);

browserTest("the page says when it has lost its node, and is live again when the node is back", async (browser) => {
  const first = serve(singleNodeStatus);
  await using page = await browser.page(DESKTOP);
  await page.goto(`${first.url}/`);
  await page.until(`document.getElementById("live").dataset.state === "live"`);
  const port = Number(new URL(first.url).port);
  await first[Symbol.asyncDispose]();
  await page.until(`document.getElementById("live").dataset.state === "lost"`);
  assert.match(await page.evaluate("document.body.innerText"), /attic/, "the last state stays");
  const source = new FixtureSource(troubledStatus(Date.now()));
  const again = serveStatus({
    port,
    app: (guard) => createStatusApp({ getStatus: source.getStatus, subscribe: source.subscribe, ...guard }),
  });
  try {
    await page.until(`document.getElementById("live").dataset.state === "live"`, 15_000);
    await page.until(`document.querySelectorAll("tr[id]").length === 8`);
  } finally {
    await again.stop(1_000);
  }
});

browserTest("without scripts the page is whole and offers nothing that does not work", async (browser) => {
  await using served = serve(troubledStatus);
  await using page = await browser.page({ ...PHONE, script: false } satisfies PageOptions);
  await page.goto(`${served.url}/`);
  const { root } = await page.send("DOM.getDocument", { depth: -1 }) as { root: { nodeId: number } };
  const find = async (selector: string) => {
    const { nodeIds } = await page.send("DOM.querySelectorAll", { nodeId: root.nodeId, selector }) as {
      nodeIds: number[];
    };
    return nodeIds;
  };
  assert.equal((await find("tr[id]")).length, 8);
  assert.equal((await find("svg.plot polyline")).length, 4);
  const [button] = await find("button[data-copy]");
  await assert.rejects(page.send("DOM.getBoxModel", { nodeId: button }), /box model/i, "no button without a script");
  assertSound(page, served.url, "no script");
});

browserTest("names with markup in them run nothing in a real browser, also when they arrive live", async (browser) => {
  await using served = serve(singleNodeStatus);
  await using page = await browser.page(DESKTOP);
  await page.goto(`${served.url}/`);
  await page.until(`document.getElementById("live").dataset.state === "live"`);
  const evil = `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>"><svg onload=window.pwned=1>`;
  const status = troubledStatus(Date.now());
  served.source.status = {
    ...status,
    members: status.members.map((member) => ({ ...member, name: evil })),
    pending: status.pending.map((one) => ({ ...one, name: evil })),
  };
  served.source.emit({ type: "status" });
  await page.until(`document.body.innerText.includes("onerror")`);
  assert.equal(await page.evaluate("window.pwned ?? 0"), 0);
  assert.equal(await page.evaluate(`document.querySelectorAll("img, #app script").length`), 0);
  assertSound(page, served.url, "markup");
});

/**
 * The script of the dashboard, sent inline. It takes over what the server renders, nothing else, so the
 * page without it says the same and merely stands still.
 *
 * @module
 */

/** Source of the script. No `</` may be in it. */
export const DASHBOARD_SCRIPT = `"use strict";
(() => {
  const app = document.getElementById("app");
  const live = document.getElementById("live");
  document.documentElement.classList.add("js");
  let skew = Number(app.dataset.now) - Date.now();

  const relative = (at) => {
    const distance = at - Date.now() - skew;
    const seconds = Math.round(Math.abs(distance) / 1000);
    if (seconds < 1) return "now";
    const text = seconds < 60 ? seconds + " s" : seconds < 3600 ? Math.floor(seconds / 60) + " min"
      : seconds < 172800 ? Math.floor(seconds / 3600) + " h" : Math.floor(seconds / 86400) + " d";
    return distance > 0 ? "in " + text : text + " ago";
  };
  const tick = () => {
    for (const time of app.querySelectorAll("time[data-at]")) {
      const text = relative(Number(time.dataset.at));
      if (time.textContent !== text) time.textContent = text;
    }
  };
  setInterval(tick, 1000);

  // Makes "from" like "to" in place: scroll position, focus, selection and open details stay.
  const morph = (from, to) => {
    if (from.nodeType !== 1) {
      if (from.data !== to.data) from.data = to.data;
      return;
    }
    if (from.hasAttribute("data-keep") || from.isEqualNode(to)) return;
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && !(name === "open" && from.nodeName === "DETAILS")) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    const wanted = [...to.childNodes];
    wanted.forEach((next, index) => {
      let have = from.childNodes[index];
      if (next.id && have && have.id !== next.id) {
        const moved = [...from.children].find((child) => child.id === next.id);
        if (moved) from.insertBefore(moved, have);
        have = moved || have;
      }
      if (!have) from.appendChild(next);
      else if (have.nodeName === next.nodeName && (have.id || "") === (next.id || "")) morph(have, next);
      else from.insertBefore(next, have);
    });
    while (from.childNodes.length > wanted.length) from.lastChild.remove();
  };

  const show = (state, text) => {
    live.dataset.state = state;
    live.lastElementChild.textContent = text;
  };
  let events;
  const connect = () => {
    if (events) return;
    events = new EventSource("events?view=page");
    events.addEventListener("page", (message) => {
      const page = JSON.parse(message.data);
      const template = document.createElement("template");
      template.innerHTML = page.html;
      skew = page.nowMs - Date.now();
      morph(app, template.content.firstElementChild);
      document.title = app.dataset.title;
      show("live", "Live");
    });
    events.onerror = () => {
      show("lost", "Reconnecting");
      // The browser gives up for good when the node answers with an error.
      if (events && events.readyState === 2) {
        disconnect();
        setTimeout(connect, 5000);
      }
    };
  };
  const disconnect = () => {
    if (events) events.close();
    events = undefined;
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) disconnect();
    else connect();
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", connect);

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button || !navigator.clipboard) return;
    navigator.clipboard.writeText(button.dataset.copy).then(() => {
      button.textContent = "Copied";
      setTimeout(() => button.textContent = "Copy", 1500);
    }, () => {});
  });
  tick();
  connect();
})();
`;

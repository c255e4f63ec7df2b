// Keeps the page live: hears that a banner changed, fetches its card, puts it where it belongs.
"use strict";

const byId = (id) => document.getElementById(id);
const notices = byId("notices");
const csrf = document.querySelector('meta[name="csrf"]').content;
const LISTS = ["open", "dismissed", "cleared"];

// The one place where markup enters the page. It is made by our own templates, which escape.
const trusted = window.trustedTypes
  ? window.trustedTypes.createPolicy("byok", { createHTML: (text) => text })
  : { createHTML: (text) => text };

function fragment(html) {
  const holder = document.createElement("template");
  holder.innerHTML = trusted.createHTML(html);
  return holder.content;
}

async function fetchHtml(path) {
  const answer = await fetch(path, { headers: { accept: "text/html" }, redirect: "error" });
  if (answer.status === 401) signedOut();
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
  return fragment(await answer.text());
}

function say(words) {
  byId("news").textContent = words;
}

function link(state, words) {
  const shown = byId("link");
  shown.dataset.state = state;
  shown.textContent = words;
}

// --- cards ---

function place(card) {
  const list = byId(card.dataset.list);
  const after = [...list.children].find((other) => other.dataset.rank > card.dataset.rank);
  list.insertBefore(card, after ?? null);
}

function isTyping(card) {
  return card?.querySelector("details[open]") && card.contains(document.activeElement);
}

function keepTyping(old, fresh) {
  const [from, to] = [old, fresh].map((card) => card.querySelector("input"));
  if (!from || !to) return false;
  fresh.querySelector("details").open = true;
  to.value = from.value;
  return to;
}

function focusAfter(rank) {
  const cards = [...byId("open").children];
  const next = cards.find((card) => card.dataset.rank > rank) ?? cards.at(-1);
  (next?.querySelector("h3") ?? byId("notices-heading")).focus();
}

function swap(content) {
  const fresh = content.querySelector("article");
  const old = byId(fresh.id);
  const hadFocus = old?.contains(document.activeElement);
  const input = isTyping(old) && keepTyping(old, fresh);
  const [before, rank] = [old?.dataset.list, old?.dataset.rank];
  old?.remove();
  for (const counted of content.querySelectorAll("[id^=count-], #summary")) {
    const shown = byId(counted.id);
    shown.textContent = counted.textContent;
  }
  if (before !== fresh.dataset.list) fresh.classList.add("arrived");
  place(fresh);
  trim();
  if (input) input.focus();
  else if (hadFocus) focusAfter(rank);
  tell(fresh, before);
}

function trim() {
  const cleared = byId("cleared").children;
  while (cleared.length > Number(byId("count-cleared").textContent)) cleared[cleared.length - 1].remove();
}

function tell(card, before) {
  const { list, title, severity } = card.dataset;
  if (list === "open") say(before === "open" ? `Changed: ${title}` : `${severity}: ${title}`);
  else say(`${list === "cleared" ? "Cleared" : "Dismissed"}: ${title}`);
}

// One at a time and in order: a slow answer about an old state must not land on a newer one.
let queue = Promise.resolve();

function refresh(bannerId) {
  queue = queue
    .then(async () => swap(await fetchHtml(`/cards/${encodeURIComponent(bannerId)}`)))
    .catch(() => link("lost", "Reload to see the newest"));
  return queue;
}

// --- dismissing ---

async function act(form) {
  const card = form.closest("article");
  const undo = form.dataset.act === "undo";
  const trouble = card.querySelector(".trouble");
  const button = form.querySelector("button");
  trouble.hidden = true;
  button.disabled = true;
  const request = { method: undo ? "DELETE" : "POST", headers: { "x-csrf-token": csrf } };
  if (!undo) {
    request.headers["content-type"] = "application/json";
    request.body = JSON.stringify({
      revision: Number(card.dataset.revision),
      why: form.elements.why.value.trim() || form.elements.why.placeholder,
    });
  }
  try {
    const path = `/api/banners/${encodeURIComponent(card.dataset.banner)}/dismissal`;
    const answer = await fetch(path, request);
    if (answer.status === 401) signedOut();
    if (answer.ok) return; // the card moves when the platform has said so, not before
    throw new Error((await answer.json()).detail);
  } catch (error) {
    trouble.textContent = error instanceof TypeError ? "The platform cannot be reached." : error.message;
    trouble.hidden = false;
    button.disabled = false;
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.dataset.act) return;
  event.preventDefault();
  act(event.target);
});

document.addEventListener("toggle", (event) => {
  if (event.target.matches(".dismissal[open]")) event.target.querySelector("input").focus();
}, true);

document.addEventListener("keydown", (event) => {
  const open = event.key === "Escape" && event.target.closest?.(".dismissal[open]");
  if (!open) return;
  open.open = false;
  open.querySelector("summary").focus();
});

// --- the stream ---

const source = new EventSource(`/api/banners/stream?cursor=${notices.dataset.cursor}`);

function signedOut() {
  source.close();
  link("lost", "Signed out: ask for a new link");
}

source.addEventListener("open", () => link("live", "Live"));
source.addEventListener("error", () => {
  if (source.readyState === EventSource.CLOSED) signedOut();
  else link("connecting", "Reconnecting");
});
source.addEventListener("banner", (event) => {
  refresh(JSON.parse(event.data).banner_id);
  refreshServers();
});
source.addEventListener("resync", () => {
  source.close();
  location.reload();
});

// --- servers ---

const EVERY = 5000;
let lastServers = null;

async function refreshServers() {
  if (document.hidden || source.readyState === EventSource.CLOSED) return;
  try {
    const content = await fetchHtml("/servers");
    const holder = document.createElement("ul");
    holder.append(content);
    const same = holder.textContent === (lastServers ?? byId("servers").textContent);
    lastServers = holder.textContent;
    if (!same) byId("servers").replaceChildren(...holder.childNodes);
  } catch {
    // the next round tries again, and the stream says when the platform is gone
  }
}

setInterval(refreshServers, EVERY);
document.addEventListener("visibilitychange", refreshServers);

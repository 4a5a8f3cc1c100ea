// SPDX-License-Identifier: LGPL-2.1-or-later
// Keeps the status page up to date, and says so when it cannot: an old page must not look new.
// Everything is on the page without it. What may not be in this file: anything that is shown only here.
"use strict";

// Milliseconds: between two looks, and for which one may take.
const EVERY = 2000;
const PATIENCE = 10000;

const live = document.getElementById("live");
// What each part was as the server sent it, before local times were added.
const sent = new Map();
let lastSuccess = Date.now();
let timer = 0;

function parts(root) {
  return root.querySelectorAll("[data-fresh]");
}

function twoDigits(number) {
  return String(number).padStart(2, "0");
}

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

// The time of day on the reader's clock, with the day where that is another one.
function localTime(moment) {
  const time = [moment.getHours(), moment.getMinutes(), moment.getSeconds()].map(twoDigits).join(":");
  return moment.getDay() === moment.getUTCDay() ? time : `${DAYS[moment.getDay()]} ${time}`;
}

function addLocalTimes(root) {
  for (const element of root.querySelectorAll("time")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime()) || moment.getTimezoneOffset() === 0) continue;
    const local = document.createElement("span");
    local.className = "local";
    local.textContent = ` ${localTime(moment)} local`;
    element.append(local);
  }
}

function take(page) {
  for (const part of parts(page)) {
    const shown = document.getElementById(part.id);
    if (!shown) continue;
    for (const { name, value } of part.attributes) {
      if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
    }
    for (const { name } of [...shown.attributes]) {
      if (!part.hasAttribute(name)) shown.removeAttribute(name);
    }
    const content = part.innerHTML;
    if (content === sent.get(part.id)) continue;
    sent.set(part.id, content);
    addLocalTimes(part);
    shown.replaceChildren(...part.childNodes);
  }
  document.title = page.title;
}

function say(text, good) {
  if (live.textContent !== text) live.textContent = text;
  document.body.classList.toggle("old", !good);
}

function selecting() {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed;
}

async function look() {
  if (document.hidden) return;
  if (selecting()) {
    say("Paused while text is selected.", true);
    timer = setTimeout(look, EVERY);
    return;
  }
  const patience = new AbortController();
  const bell = setTimeout(() => patience.abort(), PATIENCE);
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: patience.signal });
    const type = answer.headers.get("Content-Type") || "";
    if (!answer.ok || !type.startsWith("text/html")) throw new Error(`HTTP status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    lastSuccess = Date.now();
    if (!selecting()) take(page);
    say("Updates itself.", true);
  } catch (error) {
    const seconds = Math.round((Date.now() - lastSuccess) / 1000);
    say(`OLD: no answer from the daemon for ${seconds} s. What you see may no longer be so.`, false);
  }
  clearTimeout(bell);
  clearTimeout(timer);
  timer = setTimeout(look, EVERY);
}

for (const part of parts(document)) {
  sent.set(part.id, part.innerHTML);
  addLocalTimes(part);
}
say("Updates itself.", true);
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  look();
});
timer = setTimeout(look, EVERY);

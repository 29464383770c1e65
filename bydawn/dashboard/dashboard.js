// Renews the page in place.  Without scripts the page renews itself as a whole, a little less often.
"use strict";

const EVERY_MS = 3000;
const HIDDEN_MS = 15000;

async function renew() {
  try {
    const answer = await fetch("/", { cache: "no-store", redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    // Parsed and not assigned: what the parser makes of a page runs no scripts.
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.title = page.title;
    document.body.classList.remove("lost");
  } catch {
    document.body.classList.add("lost");
  }
  setTimeout(renew, document.hidden ? HIDDEN_MS : EVERY_MS);
}

setTimeout(renew, EVERY_MS);

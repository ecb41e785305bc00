// The visitor's token, where the server asks for one. The page reads its claims, and leaves it to the server to verify them.

import { at, write } from "./dom.js";
import { ROOT_PATH } from "./place.js";
import { useToken, tokenInUse } from "./api.js";
import { duration } from "./words.js";

const KEPT = `rejoin-token ${ROOT_PATH}`;
function kept(text) {
  try {
    if (text === undefined) return sessionStorage.getItem(KEPT) ?? "";
    if (text) sessionStorage.setItem(KEPT, text);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // Storage may be forbidden; the token then lasts as long as the page.
  }
  return "";
}

// A challenge with Bearer asks for a token; without, the application in front asks for a login.
export const wantsToken = (challenge) => /\bbearer\b/i.test(challenge ?? "");

export class TokenBox {
  #onUse;
  #asked = false;

  // onUse() is called when the visitor has given or dropped a token.
  constructor({ onUse }) {
    this.#onUse = onUse;
    useToken(kept());
    at("token-keep").checked = tokenInUse() !== "";
    at("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#use(at("token").value.trim());
    });
    at("token-forget").addEventListener("click", () => this.#use(""));
    at("token-keep").addEventListener("change", () => kept(at("token-keep").checked ? tokenInUse() : ""));
    setInterval(() => this.#draw(), 1000);
    this.#draw();
  }

  ask() {
    this.#asked = true;
    at("token-box").open = true;
    this.#draw();
  }

  accepted() {
    if (!this.#asked) return;
    this.#asked = false;
    at("token-box").open = false;
    this.#draw();
  }

  #use(text) {
    useToken(text);
    kept(at("token-keep").checked ? text : "");
    at("token").value = "";
    this.#draw();
    this.#onUse();
  }

  #draw() {
    const text = tokenInUse();
    at("token-box").hidden = !this.#asked && text === "";
    const claims = claimsOf(text);
    at("token-forget").hidden = text === "";
    at("token-claims").hidden = !claims;
    write(at("token-summary"), text === "" ? "A token is needed" : summaryOf(claims));
    if (text === "") return;
    const { subscribe = [], publish = [], admin } = claims?.rejoin ?? {};
    write(at("token-subject"), claims?.sub ?? "–");
    write(at("token-subscribe"), [subscribe].flat().join(", ") || "–");
    write(at("token-publish"), [publish].flat().join(", ") || "–");
    write(at("token-admin"), admin ? "yes" : "no");
    write(at("token-left"), leftOf(claims));
  }
}

// Returns the claims, or null for what is no JSON Web Token.
function claimsOf(token) {
  try {
    const bytes = Uint8Array.from(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

function leftOf(claims) {
  if (typeof claims?.exp !== "number") return "no end";
  const left = claims.exp * 1000 - Date.now();
  return left > 0 ? duration(left) : `expired ${duration(-left)} ago`;
}

function summaryOf(claims) {
  if (!claims) return "Token in use (its claims cannot be read)";
  const left = leftOf(claims);
  return `Token ${claims.sub ? `of ${claims.sub}` : "in use"}: ${left.startsWith("expired") ? left : left === "no end" ? "does not expire" : `${left} left`}`;
}

// The page of the agent inbox: a list that is asked for every second, and the progress of one agent as it happens.
// Everything that comes from the server is put in as text, never as HTML.

const REFRESH_MS = 1000;
const RETRY_MS = 1000;

const PHASES = {
  planning: "Planning",
  "looking up": "Looking things up",
  drafting: "Drafting",
  waiting: "Waits for approval",
  sending: "Sending",
  sent: "Sent",
  rejected: "Rejected",
  expired: "Expired",
  cancelled: "Cancelled",
  failed: "Failed",
};
const DONE = new Set(["sent", "rejected", "expired", "cancelled", "failed"]);
const OUTCOMES = {
  sent: "Approved, and sent.",
  rejected: "Rejected. Nothing was sent.",
  expired: "Nobody decided in time. Nothing was sent.",
  cancelled: "Cancelled. Nothing was sent.",
  failed: "The agent failed.",
};

const element = (id) => document.getElementById(id);

function make(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

async function ask(path, body) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, options).catch(() => null);
  if (response === null || response.status === 503) {
    showConnection(false);
    throw new Error("The server does not answer. Nothing is lost: try again, it counts once.");
  }
  showConnection(true);
  const answer = await response.json();
  if (!response.ok) throw new Error(typeof answer.detail === "string" ? answer.detail : "The server refused that.");
  return answer;
}

function showConnection(works) {
  const text = works ? "" : "The server does not answer. Trying again…";
  if (element("connection").textContent !== text) element("connection").textContent = text;
}

function showPhase(badge, phase) {
  badge.dataset.phase = phase;
  badge.textContent = PHASES[phase] ?? phase;
}

// In the largest units: "2 h 5 min", or roughly, "2 h".
function duration(ms, unitCount = 2) {
  let seconds = Math.max(0, Math.round(ms / 1000));
  const parts = [];
  for (const [unit, size] of [["h", 3600], ["min", 60], ["s", 1]]) {
    const count = Math.floor(seconds / size);
    seconds -= count * size;
    if (count || (unit === "s" && !parts.length)) parts.push(`${count} ${unit}`);
  }
  return parts.slice(0, unitCount).join(" ");
}

// --- the list

let agents = null; // not known yet
const items = new Map(); // agent id -> its list item, kept so that the focus stays where it is

function sectionOf(phase) {
  if (phase === "waiting") return "waiting";
  return DONE.has(phase) ? "done" : "working";
}

function makeItem(agent) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.agent = agent.id;
  button.append(make("span", "subject", agent.letter.subject), make("span", "phase", ""));
  button.append(make("span", "sender", agent.letter.sender));
  button.addEventListener("click", () => {
    location.hash = agent.id;
    element("agent").focus();
  });
  item.append(button);
  return item;
}

function showAgents() {
  const wanted = { waiting: [], working: [], done: [] };
  for (const agent of agents ?? []) {
    if (!items.has(agent.id)) items.set(agent.id, makeItem(agent));
    const item = items.get(agent.id);
    showPhase(item.querySelector(".phase"), agent.phase);
    if (agent.phase === "waiting") item.querySelector(".phase").textContent = `${duration(agent.expires_at_ms - Date.now(), 1)} left`;
    item.firstChild.setAttribute("aria-current", String(agent.id === chosen?.id));
    wanted[sectionOf(agent.phase)].push(item);
  }
  const focused = document.activeElement;
  for (const [section, list] of Object.entries(wanted)) {
    const shown = element(section);
    const isSame = shown.children.length === list.length && list.every((item, at) => shown.children[at] === item);
    if (!isSame) shown.replaceChildren(...list);
  }
  if (focused !== document.activeElement) focused.focus();
  const waiting = wanted.waiting.length;
  element("summary").textContent = waiting === 1 ? "1 letter waits for you" : `${waiting} letters wait for you`;
  document.title = waiting ? `(${waiting}) Agent inbox` : "Agent inbox";
}

async function refresh() {
  agents = await ask("/api/agents");
  showAgents();
  chosen?.takeFromList();
}

async function refreshAgainAndAgain() {
  try {
    await refresh();
  } catch {
    // `ask` has said so on the page.
  }
  setTimeout(refreshAgainAndAgain, REFRESH_MS);
}

// --- the chosen agent

let chosen = null;

class ChosenAgent {
  constructor(id) {
    this.id = id;
    this.phase = "";
    this.lastId = -1; // offset of the last entry of the stream that was shown
    this.hasEnded = false;
    this.isDecided = false;
    for (const part of ["steps", "draft", "since", "announcement", "decision-error"]) element(part).replaceChildren();
    element("note").value = "";
    element("outcome").hidden = element("decision").hidden = true;
    element("draft").setAttribute("aria-busy", "false");
    this.connect();
  }

  // The browser reconnects by itself and says which entry it saw last. Only if it gives up we begin anew, behind it.
  connect() {
    this.source = new EventSource(`/api/agents/${encodeURIComponent(this.id)}/progress?after=${this.lastId}`);
    this.source.addEventListener("message", (event) => this.show(Number(event.lastEventId), JSON.parse(event.data)));
    this.source.addEventListener("end", () => {
      this.close();
      this.hasEnded = true;
      refresh().catch(() => {});
    });
    this.source.addEventListener("error", () => {
      if (this.source.readyState === EventSource.CLOSED) this.timer = setTimeout(() => this.connect(), RETRY_MS);
    });
  }

  close() {
    clearTimeout(this.timer);
    this.source.close();
  }

  show(id, entry) {
    if (id <= this.lastId) return;
    this.lastId = id;
    if (entry.kind === "phase") this.enter(entry);
    if (entry.kind === "plan") this.addStep("plan", entry.tools.join(", then "));
    if (entry.kind === "finding") this.addStep(entry.tool, entry.text);
    if (entry.kind === "token") element("draft").append(entry.text);
    if (entry.kind === "draft") {
      if (this.hasDraft) this.addStep("draft again", "The server had stopped. This step was run again, and no other.");
      this.hasDraft = true;
      element("draft").replaceChildren();
      element("draft").setAttribute("aria-busy", "true");
    }
  }

  addStep(what, found) {
    const step = document.createElement("li");
    step.append(make("span", "what", what), make("span", "found", found));
    element("steps").append(step);
  }

  enter({ phase, note = "", expires_at_ms: expiresAtMs }) {
    if (phase === this.phase) return;
    this.phase = phase;
    this.expiresAtMs = expiresAtMs;
    showPhase(element("phase"), phase);
    element("announcement").textContent = PHASES[phase] ?? phase;
    if (phase !== "drafting") element("draft").setAttribute("aria-busy", "false");
    element("decision").hidden = phase !== "waiting" || this.isDecided;
    element("outcome").hidden = !DONE.has(phase);
    element("outcome").dataset.phase = phase;
    element("outcome").textContent = [OUTCOMES[phase], note && phase !== "expired" ? `Note: ${note}` : ""].join(" ");
    this.tick();
    refresh().catch(() => {});
  }

  // The stream is quicker; but only the list knows of agents that failed or were cancelled.
  takeFromList() {
    const agent = agents?.find(({ id }) => id === this.id);
    if (agent) this.describe(agent);
    else if (agents && !this.startedAtMs) this.find();
  }

  // It is not in the list: too old for it, or there is none under this id.
  async find() {
    try {
      this.describe(await ask(`/api/agents/${encodeURIComponent(this.id)}`));
    } catch (error) {
      element("nobody").textContent = error.message;
    }
  }

  describe(agent) {
    if (this !== chosen) return;
    this.startedAtMs = agent.started_at_ms;
    element("nobody").hidden = true;
    element("details").hidden = false;
    element("subject").textContent = agent.letter.subject;
    element("letter-text").textContent = agent.letter.text;
    element("letter-sender").textContent = agent.letter.sender;
    if (this.hasEnded || this.phase === "") this.enter(agent);
    this.tick();
  }

  tick() {
    if (this.startedAtMs) element("since").textContent = `started ${duration(Date.now() - this.startedAtMs)} ago`;
    if (this.phase !== "waiting") return;
    element("expiry").textContent = `Without an answer it gives up in ${duration(this.expiresAtMs - Date.now())}.`;
  }

  async decide(approved) {
    element("decision-error").textContent = "";
    try {
      // Clicked twice, this is sent twice. The server gives both the same key, and one counts.
      await ask(`/api/agents/${encodeURIComponent(this.id)}/decision`, { approved, note: element("note").value });
      this.isDecided = true;
      element("decision").hidden = true;
      element("agent").focus();
    } catch (error) {
      if (this.phase === "waiting" && !this.isDecided) element("decision-error").textContent = error.message;
    }
  }
}

function choose() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (id === (chosen?.id ?? "")) return;
  chosen?.close();
  chosen = null;
  element("details").hidden = true;
  element("nobody").hidden = false;
  if (id !== "") {
    chosen = new ChosenAgent(id);
    chosen.takeFromList();
  }
  showAgents();
}

// --- forms

let newId = crypto.randomUUID(); // used again if the answer to a request was lost

async function start(event) {
  event.preventDefault();
  element("start-error").textContent = "";
  try {
    const patience = Number(element("patience").value);
    const { id } = await ask("/api/agents", { id: newId, letter: element("letter").value, approval_seconds: patience });
    if (id === newId) newId = crypto.randomUUID();
    await refresh();
    location.hash = id;
  } catch (error) {
    element("start-error").textContent = error.message;
  }
}

async function showLetters() {
  try {
    for (const letter of await ask("/api/letters")) {
      element("letter").append(new Option(letter.subject, letter.id));
    }
  } catch {
    setTimeout(showLetters, RETRY_MS);
  }
}

element("start").addEventListener("submit", start);
element("decision").addEventListener("submit", (event) => {
  event.preventDefault();
  chosen?.decide(event.submitter?.value !== "reject");
});
window.addEventListener("hashchange", choose);
setInterval(() => chosen?.tick(), 1000);
showLetters();
choose();
refreshAgainAndAgain();

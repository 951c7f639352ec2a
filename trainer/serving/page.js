// Files are sent one after another; nothing that a file or a server says is put in as HTML.
"use strict";

const byId = (id) => document.getElementById(id);
const waiting = [];
let total = 0;
let done = 0;
let working = false;
let hasHeatMaps = true;

const png = (text) => `data:image/png;base64,${text}`;
const percent = (share) =>
  share > 0 && share < 0.001 ? "< 0.1%" : share < 1 && share > 0.999 ? "> 99.9%" : `${(100 * share).toFixed(1)}%`;

function add(parent, tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

async function ask(file, heatMap) {
  const form = new FormData();
  form.append("files", file, file.name);
  for (let attempt = 0; ; attempt += 1) {
    let response;
    try {
      response = await fetch(`predict?image=1${heatMap ? "&heat_map=1" : ""}`, { method: "POST", body: form });
    } catch {
      throw new Error("The server does not answer, or the file cannot be read any more.");
    }
    if (response.status === 503 && attempt < 20) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      continue;
    }
    const content = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(content.detail ?? `The server answered with ${response.status}.`);
    return content.files[0];
  }
}

function show(card, answer) {
  const find = (selector) => card.querySelector(selector);
  card.classList.remove("waiting");
  if (answer.error) {
    card.classList.add("failed");
    find(".picture").hidden = true;
    find(".map").hidden = true;
    find(".class").textContent = "Cannot be used";
    add(find(".warnings"), "li", "", answer.error);
    return;
  }
  find("img").src = png(answer.image);
  find("img").alt = "The image as the model gets it";
  find(".class").textContent = answer.class;
  const body = find("tbody");
  for (const [name, share] of Object.entries(answer.probabilities.calibrated)) {
    const row = add(body, "tr");
    add(row, "th", "", name).scope = "row";
    const fill = add(add(add(row, "td"), "span", "track"), "span", "fill");
    fill.style.width = `${100 * share}%`;
    add(row, "td", "", percent(share));
  }
  find(".above").textContent = `Above its threshold: ${answer.above_threshold.join(", ") || "no class"}`;
  find(".set").textContent = answer.set.length
    ? `Cannot be excluded: ${answer.set.join(", ")}`
    : "Every class can be excluded: the image is unlike those of validation";
  const warnings = [...answer.warnings];
  if (answer.disagreement > 0.1) {
    warnings.push(`The models disagree: standard deviation ${percent(answer.disagreement)} of a probability`);
  }
  for (const warning of warnings) add(find(".warnings"), "li", "", warning);
  find(".steps").textContent = [answer.format, ...answer.steps].join(", ");
  find(".map").hidden = !hasHeatMaps;
  if (byId("all-maps").checked) switchMap(card, true);
}

async function switchMap(card, wanted) {
  const button = card.querySelector(".map");
  const picture = card.querySelector("img");
  if (button.disabled || button.hidden || (button.getAttribute("aria-pressed") === "true") === wanted) return;
  const views = card.views;
  if (wanted && !views.map) {
    button.disabled = true;
    button.textContent = "Heat map …";
    try {
      const answer = await ask(card.file, true);
      if (answer.error) throw new Error(answer.error);
      views.map = png(answer.heat_map);
    } catch (error) {
      add(card.querySelector(".warnings"), "li", "", error.message);
      return;
    } finally {
      button.disabled = false;
      button.textContent = "Heat map";
    }
  }
  views.image ??= picture.src;
  picture.src = wanted ? views.map : views.image;
  picture.alt = wanted ? "The image under its heat map" : "The image as the model gets it";
  button.setAttribute("aria-pressed", String(wanted));
}

function progress() {
  byId("progress").textContent = total ? `${done} of ${total} files` : "";
  byId("clear").hidden = !total || working;
}

async function work() {
  if (working) return;
  working = true;
  progress();
  await described;
  for (let card; (card = waiting.shift()); ) {
    let answer;
    try {
      answer = await ask(card.file, false);
    } catch (error) {
      answer = { error: error.message };
    }
    show(card, answer);
    done += 1;
    progress();
  }
  working = false;
  progress();
}

function take(files) {
  for (const file of files) {
    const card = byId("card").content.firstElementChild.cloneNode(true);
    card.file = file;
    card.views = {};
    card.classList.add("waiting");
    const name = card.querySelector("h2");
    name.textContent = file.name;
    name.title = file.name;
    const button = card.querySelector(".map");
    button.hidden = true;
    button.addEventListener("click", () => switchMap(card, button.getAttribute("aria-pressed") !== "true"));
    byId("results").append(card);
    waiting.push(card);
    total += 1;
  }
  work();
}

const drop = byId("drop");
byId("files").addEventListener("change", (event) => {
  take([...event.target.files]);
  event.target.value = "";
});
// The whole page takes files: one that misses the frame would otherwise be opened by the browser.
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
}
drop.addEventListener("submit", (event) => event.preventDefault());
byId("all-maps").addEventListener("change", async (event) => {
  for (const card of [...byId("results").children]) await switchMap(card, event.target.checked);
});
byId("clear").addEventListener("click", () => {
  byId("results").replaceChildren();
  total = done = 0;
  progress();
  byId("files").focus();
});
progress();

const described = fetch("model")
  .then((response) => response.json())
  .then((model) => {
    byId("model").textContent =
      `${model.models.join(", ")}: ${model.classes.join(", ")}; ${model.image_size} × ${model.image_size} px`;
    hasHeatMaps = model.heat_maps;
    for (const element of document.querySelectorAll(".about-maps")) element.hidden = !hasHeatMaps;
    byId("sensitivity").textContent =
      `Classes whose raw probability reaches a threshold that ${percent(model.sensitivity)} of the class's ` +
      "validation images reach.";
    byId("coverage").textContent =
      `A set of classes that holds the true one for ${percent(model.coverage)} of the images of each class, ` +
      "if they are like those of validation (conformal prediction).";
  })
  .catch(() => {
    byId("model").textContent = "The server does not answer: start it again and reload the page.";
  });

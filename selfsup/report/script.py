"""The script of every page: sorting, zoom, names on hover, folded parts on paper.

It is the only script that a page may run: the policy in its head has the script's hash. Without it
everything can still be read. It writes text alone, never HTML.
"""

import base64
import hashlib

SORT = """
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (name, parent) => parent.appendChild(document.createElement(name));

function value(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace(/,/g, ""));
  return [text, number];
}
function sort(table, header, column) {
  const rows = all("tbody tr", table);
  const numbers = rows.some((row) => !isNaN(value(row, column)[1]));
  const before = header.getAttribute("aria-sort");
  const down = before ? before === "ascending" : numbers;
  all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  rows.sort((first, second) => {
    const [a, x] = value(first, column), [b, y] = value(second, column);
    if (numbers && isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
    const order = numbers ? x - y : a.localeCompare(b, "en", { numeric: true });
    return down ? -order : order;
  });
  table.tBodies[0].append(...rows);
}
all("table.sort").forEach((table) => all("th", table).forEach((header, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = header.textContent;
  header.replaceChildren(button);
  button.addEventListener("click", () => sort(table, header, column));
}));
"""

ZOOM = """
const images = all("figure img");
const dialog = make("dialog", document.body);
dialog.setAttribute("aria-label", "Enlarged image");
const large = make("img", dialog), words = make("p", dialog);
large.alt = "";
const close = make("button", dialog);
close.type = "button";
close.textContent = "Close (Esc)";
close.addEventListener("click", () => dialog.close());
let shown = 0;
function zoom(place) {
  shown = (place + images.length) % images.length;
  const image = images[shown], figure = image.closest("figure");
  large.src = image.src;
  large.alt = image.alt;
  large.className = image.className;
  words.textContent = [figure.querySelector("figcaption")?.textContent, figure.title]
    .filter(Boolean).join("\\n");
  if (!dialog.open) dialog.showModal();
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => images[shown].focus());
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) zoom(shown + step);
});
images.forEach((image, place) => {
  const row = all("figure img", image.closest(".row, .grid") ?? image.closest("figure"));
  const at = row.indexOf(image);
  image.tabIndex = at ? -1 : 0;
  image.setAttribute("role", "button");
  image.addEventListener("click", () => zoom(place));
  image.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) row[(at + step + row.length) % row.length].focus();
    const opens = event.key === "Enter" || event.key === " ";
    if (opens) zoom(place);
    if (step || opens) event.preventDefault();
  });
});
"""

HOVER = """
const tip = make("div", document.body);
tip.id = "tip";
tip.setAttribute("role", "status");
function show(text, x, y) {
  tip.textContent = text;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 4)) + "px";
  const below = y + 18 + box.height <= innerHeight;
  tip.style.top = Math.max(4, below ? y + 18 : y - box.height - 10) + "px";
}
const hide = () => { tip.textContent = ""; };
all(".map").forEach((map) => {
  all("title", map).forEach((title) => {
    title.parentNode.dataset.name = title.textContent;
    title.remove();
  });
  map.addEventListener("pointermove", (event) => {
    const name = event.target.closest("use")?.dataset.name;
    if (name) show(name, event.clientX, event.clientY); else hide();
  });
  map.addEventListener("pointerleave", hide);
  all("button", map.parentNode).forEach((button) => button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    all("use", map).forEach((point) => {
      if (point.dataset.kind === button.dataset.kind) point.classList.toggle("chosen", on);
    });
    map.classList.toggle("chosen", map.querySelector("use.chosen") !== null);
  }));
});
all(".chart svg[data-axis]").forEach((chart) => {
  const [left, right, low, high] = chart.dataset.axis.split(" ").map(Number);
  const lines = all("path[data-points]", chart).map((path) => [
    path.dataset.name, path.dataset.points.split(" ").map((pair) => pair.split(":").map(Number))]);
  const steps = [...new Set(lines.flatMap((line) => line[1].map((point) => point[0])))];
  steps.sort((a, b) => a - b);
  const cursor = chart.querySelector(".cursor");
  let at = steps.length - 1;
  function read(step) {
    at = steps.reduce((best, other, i) =>
      Math.abs(other - step) < Math.abs(steps[best] - step) ? i : best, 0);
    const x = left + (steps[at] - low) / (high - low) * (right - left);
    cursor.setAttribute("d", `M${x} 8V${cursor.dataset.bottom}`);
    const values = lines.map(([name, points]) => {
      const point = points.find((each) => each[0] === steps[at]);
      return point && `${name} ${point[1]}`;
    });
    const box = chart.getBoundingClientRect();
    const text = [`step ${steps[at]}`, ...values.filter(Boolean)].join("\\n");
    show(text, box.left + x / chart.viewBox.baseVal.width * box.width, box.top + box.height / 2);
  }
  const leave = () => { hide(); cursor.setAttribute("d", ""); };
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
    read(low + (x - left) / (right - left) * (high - low));
  });
  chart.addEventListener("pointerleave", leave);
  chart.addEventListener("blur", leave);
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    read(steps[Math.max(0, Math.min(steps.length - 1, at + step))]);
  });
});
"""

PRINT = """
const folded = all("details");
addEventListener("beforeprint", () => folded.forEach((part) => {
  part.dataset.open = part.open ? "1" : "";
  part.open = true;
}));
addEventListener("afterprint", () => folded.forEach((part) => {
  part.open = part.dataset.open === "1";
}));
"""

SCRIPT = '"use strict";' + SORT + ZOOM + HOVER + PRINT
HASH = "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
"""Of the script, for the policy of a page."""

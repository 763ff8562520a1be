"use strict";
// The dependency maps: pick a cell by pointer, arrow keys or button, and read both segments.
// Corpus text only ever passes through textContent and text nodes.

function number(value) {
  return value === null ? "–" : String(Number(value.toPrecision(3))).replace("-", "−");
}

function piece([text, most]) {
  if (!most) return document.createTextNode(text);
  const mark = document.createElement("mark");
  mark.textContent = text;
  return mark;
}

function wire(map) {
  const data = JSON.parse(map.querySelector("script").textContent);
  const canvas = map.querySelector(".canvas");
  const cursor = map.querySelector(".cursor");
  const hover = map.querySelector(".hover");
  const place = hover.textContent;
  const cells = new Map(data.cells.map((cell) => [cell[0] * data.size + cell[1], cell]));
  const gains = new Map(data.gains.map((one) => [one[0] * data.size + one[1], one]));
  const gained = map.querySelector(".gained");
  const strongest = map.querySelector(".strongest button").dataset;
  let at = { i: Number(strongest.i), j: Number(strongest.j) };

  function describe(i, j) {
    const cell = cells.get(i * data.size + j);
    const pair = `Segment ${i} after segment ${j}: `;
    if (!cell) return pair + "not sampled";
    return pair + `strength ${number(cell[2])}` + (cell[3] === null ? "" : `, gain ${number(cell[3])} nats per token`);
  }

  function show(i, j) {
    i = Math.min(Math.max(i, 1), data.size - 1);
    j = Math.min(Math.max(j, 0), i - 1);
    at = { i, j };
    cursor.setAttribute("x", j);
    cursor.setAttribute("y", i);
    map.querySelector(".verdict").textContent = describe(i, j);
    for (const [side, index, word] of [["j", j, "Earlier"], ["i", i, "Later"]]) {
      map.querySelector(`.name-${side}`).textContent = `${word}: segment ${index}`;
      map.querySelector(`.text-${side}`).textContent = data.segments[index] ?? "(its text is not in the records)";
    }
    const known = gains.get(i * data.size + j);
    gained.hidden = !known;
    if (known) {
      map.querySelector(".text-i").replaceChildren(...known[2].map(piece));
      gained.querySelector("span").textContent = known[3];
    }
  }

  function under(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(cursor.getScreenCTM().inverse());
    const i = Math.floor(point.y);
    const j = Math.floor(point.x);
    return j >= 0 && j < i && i < data.size ? { i, j } : null;
  }

  canvas.addEventListener("pointermove", (event) => {
    const cell = under(event);
    hover.textContent = cell ? describe(cell.i, cell.j) : place;
  });
  canvas.addEventListener("pointerleave", () => (hover.textContent = place));
  canvas.addEventListener("click", (event) => {
    const cell = under(event);
    if (cell) show(cell.i, cell.j);
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key in steps) show(at.i + steps[event.key][0], at.j + steps[event.key][1]);
    else if (event.key === "Home") show(Number(strongest.i), Number(strongest.j));
    else return;
    event.preventDefault();
  });
  // The buttons of the words stand in the card around the map.
  for (const button of map.closest(".card").querySelectorAll("button[data-i]")) {
    button.addEventListener("click", () => {
      map.open = true;
      show(Number(button.dataset.i), Number(button.dataset.j));
      map.querySelector(".mapbody").scrollIntoView({ block: "nearest" });
    });
  }
}

document.querySelectorAll(".map").forEach(wire);

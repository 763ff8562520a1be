// The table of documents: sort, filter, search, open a row, copy. It works on the rows that the page carries.
// Corpus text only ever passes through textContent.

const PAGE_ROWS = 25;
const PRINTED_ROWS = 500;
const MOST_CHOICES = 40;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shown(value, column) {
  if (value === null || value === "") return column.kind === "number" ? "–" : "";
  if (column.name === "reach") return value ? `${value / 1024}k` : "0";
  if (column.kind !== "number") return value;
  if (Number.isInteger(value)) return value.toLocaleString("en").replace("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

// A spreadsheet runs cells that begin with one of these as formulas, and ids and reasons come from the corpus.
function csvCell(value) {
  if (value === null) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function toCsv(names, rows) {
  return [names, ...rows].map((row) => row.map(csvCell).join(",")).join("\n") + "\n";
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without the permission, or where a page from a file has no clipboard: through a selected text area.
    const area = element("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function browse(root) {
  const { columns, rows } = JSON.parse(root.querySelector(".rows-data").textContent);
  const table = root.querySelector("table.rows");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const source = columns.findIndex((column) => column.name === "source");
  const visible = columns.map((column, place) => place).filter((place) => columns[place].shown);
  const state = { sort: -1, falling: true, page: 0, pageRows: PAGE_ROWS, filters: new Map(), words: [] };
  const haystack = rows.map(([id, , excerpt, cells]) =>
    [id, excerpt, ...cells.filter((cell, place) => columns[place].kind === "text")].join("\n").toLowerCase()
  );
  let found = rows.map((row, place) => place);

  function value(place, column) {
    return column < 0 ? rows[place][0] : rows[place][3][column];
  }

  function compare(a, b) {
    const [one, other] = [value(a, state.sort), value(b, state.sort)];
    const empty = (x) => x === null || x === "";
    if (empty(one) || empty(other)) return empty(one) - empty(other) || a - b; // always last
    const order = typeof one === "number" ? one - other : one.localeCompare(other);
    return (state.falling ? -order : order) || a - b;
  }

  function choose() {
    found = [];
    for (let place = 0; place < rows.length; place++) {
      if (!state.words.every((word) => haystack[place].includes(word))) continue;
      if ([...state.filters].every(([column, wanted]) => wanted(value(place, column)))) found.push(place);
    }
    if (state.sorted) found.sort(compare);
    state.page = 0;
    draw();
  }

  function details(place) {
    const [, , excerpt, cells] = rows[place];
    const list = element("dl", { class: "terms" });
    columns.forEach((column, k) => {
      if (cells[k] === null || cells[k] === "") return;
      const name = element("dt");
      name.textContent = column.title;
      const what = element("dd");
      what.textContent = shown(cells[k], column);
      list.append(element("div", {}, name, what));
    });
    const cell = element("td", { colspan: visible.length + 1 }, list);
    if (excerpt) {
      const quote = element("q", { class: "excerpt" });
      quote.textContent = excerpt;
      cell.prepend(quote);
    }
    return element("tr", { class: "opened" }, cell);
  }

  function line(place) {
    const [id, anchor, excerpt, cells] = rows[place];
    const name = anchor ? element("a", { href: `#${anchor}` }) : element("span");
    name.textContent = id;
    const open = element("button", { type: "button", class: "open", "aria-expanded": "false", "aria-label": "All figures of this document" });
    open.textContent = "+";
    const head = element("th", { scope: "row", class: "doc" }, open, name);
    if (source >= 0 && cells[source]) {
      const tag = element("span", { class: "tag" });
      tag.textContent = cells[source];
      head.append(tag);
    }
    if (excerpt) {
      const quote = element("q", { class: "excerpt" });
      quote.textContent = excerpt;
      head.append(quote);
    }
    const row = element("tr", {}, head);
    for (const k of visible) {
      const cell = element("td", { class: columns[k].kind === "number" ? "num" : `words-${columns[k].name}` });
      cell.textContent = shown(cells[k], columns[k]);
      row.append(cell);
    }
    open.addEventListener("click", () => {
      const opened = row.nextElementSibling?.classList.contains("opened");
      if (opened) row.nextElementSibling.remove();
      else row.after(details(place));
      open.setAttribute("aria-expanded", String(!opened));
      open.textContent = opened ? "+" : "−";
    });
    return row;
  }

  function draw() {
    const first = state.page * state.pageRows;
    const last = Math.min(first + state.pageRows, found.length);
    body.replaceChildren(...found.slice(first, last).map(line));
    const all = found.length === rows.length ? "" : ` (of ${rows.length.toLocaleString("en")})`;
    root.querySelector(".count").textContent = found.length
      ? `Rows ${(first + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${found.length.toLocaleString("en")}${all}`
      : `No document matches${all}`;
    const pages = Math.max(1, Math.ceil(found.length / state.pageRows));
    root.querySelector(".pages").hidden = pages < 2;
    root.querySelector(".page").textContent = `Page ${state.page + 1} of ${pages}`;
    for (const button of root.querySelectorAll("[data-page]")) {
      const back = button.dataset.page === "first" || button.dataset.page === "previous";
      button.disabled = back ? state.page === 0 : state.page === pages - 1;
    }
  }

  function sortBy(column) {
    const kind = column < 0 ? "text" : columns[column].kind;
    state.falling = state.sorted && state.sort === column ? !state.falling : kind === "number";
    state.sort = column;
    state.sorted = true;
    heads.forEach((head, place) => {
      const mine = (place ? visible[place - 1] : -1) === column;
      if (mine) head.setAttribute("aria-sort", state.falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    choose();
  }

  const buttons = heads.map((head, place) => {
    const button = element("button", { type: "button", class: "sort" });
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => sortBy(place ? visible[place - 1] : -1));
    return button;
  });

  root.querySelector("input[type=search]").addEventListener("input", (event) => {
    state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    choose();
  });

  // A choice for each column of few texts; a least value for the first number, which is the score.
  columns.forEach((column, k) => {
    if (column.kind !== "text") return;
    const values = [...new Set(rows.map((row) => row[3][k]).filter(Boolean))].sort();
    if (values.length < 2 || values.length > MOST_CHOICES) return;
    const select = element("select", {}, element("option", { value: "" }, "all"));
    values.forEach((one, number) => {
      const option = element("option", { value: String(number) });
      option.textContent = one;
      select.append(option);
    });
    select.addEventListener("change", () => {
      const wanted = values[Number(select.value)];
      if (select.value === "") state.filters.delete(k);
      else state.filters.set(k, (cell) => cell === wanted);
      choose();
    });
    root.querySelector(".filters").append(element("label", {}, `${column.title} `, select));
  });
  const score = columns.findIndex((column) => column.kind === "number");
  if (score >= 0) {
    const [least, most] = ["from", "to"].map((word) => {
      const input = element("input", { type: "number", step: "any", "aria-label": `${columns[score].title} ${word}` });
      root.querySelector(".filters").append(element("label", {}, word === "from" ? `${columns[score].title} from ` : "to ", input));
      input.addEventListener("input", () => {
        const [low, high] = [least, most].map((one) => (one.value === "" ? null : Number(one.value)));
        if (low === null && high === null) state.filters.delete(score);
        else state.filters.set(score, (cell) => cell !== null && (low === null || cell >= low) && (high === null || cell <= high));
        choose();
      });
      return input;
    });
  }

  for (const button of root.querySelectorAll("[data-page]")) {
    button.addEventListener("click", () => {
      const pages = Math.ceil(found.length / state.pageRows);
      const to = { first: 0, previous: state.page - 1, next: state.page + 1, last: pages - 1 }[button.dataset.page];
      state.page = Math.min(Math.max(to, 0), pages - 1);
      draw();
    });
  }

  for (const button of root.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const names = ["id", ...columns.map((column) => column.name), "excerpt"];
      const lines = found.map((place) => [rows[place][0], ...rows[place][3], rows[place][2]]);
      const text =
        button.dataset.copy === "csv"
          ? toCsv(names, lines)
          : JSON.stringify(lines.map((cells) => Object.fromEntries(names.map((name, k) => [name, cells[k]]))), null, 1);
      const done = await copyText(text);
      const told = root.querySelector(".copied");
      told.textContent = done ? `${found.length.toLocaleString("en")} rows copied` : "The browser refused to copy";
    });
  }

  // On paper the heads are plain text: browsers repeat them on every page, but leave buttons out.
  window.addEventListener("beforeprint", () => {
    heads.forEach((head, place) => (head.textContent = buttons[place].textContent));
    state.pageRows = PRINTED_ROWS;
    state.page = 0;
    draw();
  });
  window.addEventListener("afterprint", () => {
    heads.forEach((head, place) => head.replaceChildren(buttons[place]));
    state.pageRows = PAGE_ROWS;
    draw();
  });
  root.querySelector(".controls").hidden = false;
  draw();
}

document.querySelectorAll(".browse").forEach(browse);

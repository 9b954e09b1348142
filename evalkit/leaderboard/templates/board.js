(() => {
  const MISSING = Infinity;
  // Laying out ten thousand rows takes seconds: a long table shows so many at first, and more on request.
  const STEP = 500;
  const input = document.getElementById("filter");
  if (!input) return;
  const count = document.getElementById("count");
  const boxes = [...document.querySelectorAll(".controls input[type=checkbox]")];

  const tables = [...document.querySelectorAll("table.board")].map((table) => {
    const headings = [...table.tHead.rows[0].cells];
    const rows = [...table.tBodies[0].rows].map((element) => {
      const link = element.cells[1].querySelector("a");
      const anchor = link.getAttribute("href").slice(1);
      return {
        element,
        anchor,
        text: `${link.textContent} ${element.cells[2].textContent}`.toLowerCase(),
        family: element.cells[2].textContent.trim(),
        order: element.dataset.order.split(" ").map((place) => (place === "-" ? MISSING : Number(place))),
      };
    });
    const more = table.closest("section").querySelector(".more");
    return { table, body: table.tBodies[0], headings, rows, more, limit: more ? STEP : Infinity };
  });
  const total = tables.reduce((sum, one) => sum + one.rows.length, 0);

  const show = (everything = false) => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const families = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    let shown = 0;
    for (const { table, body, rows, more, limit } of tables) {
      const kept = [];
      for (const row of rows) {
        const visible =
          (boxes.length === 0 || families.has(row.family)) && words.every((word) => row.text.includes(word));
        if (visible) {
          kept.push(row.element);
        }
        const told = document.getElementById(row.anchor);
        const run = told && (told.closest(".run") ?? told);
        if (run && run.hidden === visible) run.hidden = !visible;
      }
      const attached = document.createDocumentFragment();
      for (const element of everything ? kept : kept.slice(0, limit)) attached.append(element);
      body.replaceChildren(attached);
      table.classList.add("ready");
      if (more) more.hidden = kept.length <= limit;
      shown += kept.length;
    }
    count.textContent = shown === total ? `All ${total} models` : `${shown} of ${total} models`;
  };

  const sort = (one, column) => {
    const heading = one.headings[column];
    const before = heading.getAttribute("aria-sort");
    const first = heading.dataset.best === "higher" ? "descending" : "ascending";
    const next = before === null ? first : before === "ascending" ? "descending" : "ascending";
    const sign = next === "ascending" ? 1 : -1;
    one.rows.sort((a, b) => {
      const x = a.order[column];
      const y = b.order[column];
      // Missing stays last in both directions; equal ones stand in the order of their names.
      if (x === y) return a.order[1] - b.order[1];
      if (x === MISSING || y === MISSING) return x === MISSING ? 1 : -1;
      return sign * (x - y);
    });
    for (const other of one.headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", next);
    show();
  };

  for (const one of tables) {
    if (one.more) {
      one.more.addEventListener("click", () => {
        one.limit += STEP;
        show();
      });
    }
    one.headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(one, column));
      heading.append(button);
    });
    const section = one.table.closest("section");
    const point = (event, on) => {
      const row = event.target.closest("tbody tr");
      const link = row && row.querySelector("a");
      const found = link && section.querySelector(`.point[data-key="${link.getAttribute("href").slice(1)}"]`);
      if (found) found.classList.toggle("on", on);
    };
    for (const name of ["mouseover", "focusin"]) one.body.addEventListener(name, (event) => point(event, true));
    for (const name of ["mouseout", "focusout"]) one.body.addEventListener(name, (event) => point(event, false));
  }

  const clear = () => {
    input.value = "";
    for (const box of boxes) box.checked = true;
    show();
  };
  input.addEventListener("input", () => show());
  for (const box of boxes) box.addEventListener("change", () => show());
  addEventListener("beforeprint", () => show(true));
  addEventListener("afterprint", () => show());
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement && event.target.type !== "checkbox";
    if (event.key === "Escape") {
      clear();
    } else if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      input.focus();
    }
  });
  document.querySelector(".controls").hidden = false;
  show();
})();

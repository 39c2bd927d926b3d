// Comforts only: the page says everything without them.
(() => {
  const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip", hidden: true }));
  tip.setAttribute("role", "tooltip");
  for (const title of document.querySelectorAll(".chart title")) {
    const owner = title.parentElement;
    if (owner.classList.contains("chart")) owner.setAttribute("aria-label", title.textContent);
    else owner.dataset.tip = title.textContent;
    title.remove();
  }
  for (const token of document.querySelectorAll(".tokens span[title]")) {
    token.dataset.tip = token.title;
    token.setAttribute("aria-label", token.title);
    token.removeAttribute("title");
  }
  const show = (event) => {
    const owner = event.target.closest?.("[data-tip]");
    tip.hidden = !owner;
    if (!owner) return;
    tip.textContent = owner.dataset.tip;
    const at = owner.getBoundingClientRect(), box = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(innerWidth - box.width - 6, at.left + at.width / 2 - box.width / 2)) + "px";
    tip.style.top = (at.top - box.height - 6 > 0 ? at.top - box.height - 6 : at.bottom + 6) + "px";
  };
  for (const kind of ["pointerover", "focusin", "click"]) document.addEventListener(kind, show);
  addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, true);

  // One stop for the tab key per text; the arrow keys walk along its tokens.
  for (const text of document.querySelectorAll(".tokens")) {
    const tokens = [...text.querySelectorAll("span[data-tip]")];
    if (tokens.length) tokens[0].tabIndex = 0;
    text.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], at = tokens.indexOf(document.activeElement);
      const next = tokens[at + step];
      if (!step || at < 0 || !next) return;
      event.preventDefault();
      tokens[at].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }
  for (const box of document.querySelectorAll(".copy")) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Copy" });
    button.onclick = async () => {
      const pre = box.querySelector("pre");
      try { await navigator.clipboard.writeText(pre.textContent); button.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(pre); button.textContent = "Selected"; }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    };
    box.append(button);
  }
  for (const table of document.querySelectorAll("table.sorts")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    if (body.rows.length < 3) continue;
    heads.forEach((head, index) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      button.onclick = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[index].dataset.v ?? row.cells[index].textContent;
        const order = (a, b) => {
          const x = key(a), y = key(b), gap = (x === "") - (y === "");
          if (gap) return gap; // what is missing stays last
          const by = x - y;
          return (down ? -1 : 1) * (Number.isNaN(by) ? x.localeCompare(y) : by);
        };
        body.append(...[...body.rows].sort(order));
      };
    });
  }
})();

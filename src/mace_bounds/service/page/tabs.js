// Tabs, as the ARIA practices have them: arrows move, one panel is seen.

import { el } from "./dom.js";

/** Panels by [id, title, content]; the first is open. One alone needs no tab. */
export function tabs(label, panels) {
  if (panels.length === 1) return [el("div", { id: panels[0][0] }, panels[0][2])];
  const buttons = panels.map(([id, title]) => el("button", { type: "button", role: "tab", id: `${id}-tab`, "aria-controls": id }, title));
  const shown = panels.map(([id, , content]) => el("div", { role: "tabpanel", id, "aria-labelledby": `${id}-tab` }, content));
  function open(at, move = true) {
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", String(i === at));
      button.tabIndex = i === at ? 0 : -1;
      shown[i].hidden = i !== at;
    });
    if (move) buttons[at].focus();
  }
  buttons.forEach((button, i) => {
    button.addEventListener("click", () => open(i));
    button.addEventListener("keydown", (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      open((to + buttons.length) % buttons.length);
    });
  });
  open(0, false);
  return [el("div", { role: "tablist", "aria-label": label, class: "tabs" }, buttons), ...shown];
}

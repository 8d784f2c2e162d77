"use strict";
// Filters the question cards and shows a first few only; without scripts the page simply shows all of them.
{
  const form = document.getElementById("filters");
  const list = document.getElementById("cards");
  const cards = list ? [...list.children] : [];
  const buttons = form ? [...form.querySelectorAll("button")] : [];
  const more = document.getElementById("show-all");
  const chosen = { set: "", group: "", change: "", training: "" };
  let isAllShown = false;

  const fits = (card, wanted) => Object.keys(wanted).every((key) => !wanted[key] || card.dataset[key] === wanted[key]);

  const update = () => {
    let matches = 0;
    for (const card of cards) {
      const isMatch = fits(card, chosen);
      matches += isMatch;
      card.hidden = !isMatch || (!isAllShown && matches > Number(list.dataset.first));
    }
    for (const button of buttons) {
      const { key, value } = button.dataset;
      button.setAttribute("aria-pressed", String(chosen[key] === value));
      if (key === "group" && value) {
        button.hidden = !cards.some((card) => fits(card, { set: chosen.set, group: value }));
      }
    }
    const shown = cards.filter((card) => !card.hidden).length;
    document.getElementById("matches").textContent =
      matches === 0 ? "No question fits." : `${shown} of ${matches} shown.`;
    more.hidden = shown === matches;
    more.textContent = `Show all ${matches}`;
  };

  for (const button of buttons) {
    button.addEventListener("click", () => {
      chosen[button.dataset.key] = button.dataset.value;
      if (button.dataset.key === "set" && !cards.some((card) => fits(card, { set: chosen.set, group: chosen.group }))) {
        chosen.group = "";
      }
      update();
    });
  }
  if (form) {
    more.addEventListener("click", () => {
      isAllShown = true;
      update();
    });
    form.hidden = false;
    update();
  }
}

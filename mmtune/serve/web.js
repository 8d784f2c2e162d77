/* What the page of `mmtune web` does in the browser alone: copy and save a dialogue. Texts come as they are. */
const DIALOGUES = "#chat-after, #chat-before";

window.mmtune = {
  copy(user, model, told) {
    const said = [...document.querySelectorAll(DIALOGUES)].filter((each) => each.offsetParent).map((dialogue) =>
      [...dialogue.querySelectorAll(".said")].map((each) =>
        `${each.classList.contains("user") ? user : model}: ${each.innerText.trim()}`).join("\n\n"));
    const text = said.filter((each) => each).join("\n\n---\n\n");
    if (!text) return;
    const done = () => this.flash("do-copy", told);
    if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(done);
    else this.copyByHand(text) && done();
  },

  /* Over plain HTTP from another machine browsers have no clipboard for scripts. */
  copyByHand(text) {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.appendChild(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  },

  flash(id, text) {
    const button = document.getElementById(id);
    button.dataset.told = text;
    setTimeout(() => delete button.dataset.told, 1500);
  },

  toEnd(dialogue) {
    if (!dialogue.dataset.isUp) dialogue.scrollTop = dialogue.scrollHeight;
  },

  save(saved) {
    if (!saved) return;
    for (const [name, text] of Object.entries(JSON.parse(saved))) {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }
  },
};

/* A dialogue stays at its end while an answer grows, unless somebody has scrolled up. */
new MutationObserver(() => {
  for (const dialogue of document.querySelectorAll(DIALOGUES)) {
    if (!dialogue.dataset.isWatched) {
      dialogue.dataset.isWatched = "yes";
      dialogue.addEventListener("scroll", () => {
        const left = dialogue.scrollHeight - dialogue.scrollTop - dialogue.clientHeight;
        dialogue.dataset.isUp = left > 60 ? "yes" : "";
      });
      dialogue.addEventListener("load", () => window.mmtune.toEnd(dialogue), true);
    }
    window.mmtune.toEnd(dialogue);
  }
}).observe(document, { childList: true, subtree: true, characterData: true });

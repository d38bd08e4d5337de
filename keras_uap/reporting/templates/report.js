// Shows what belongs to the slider's stop, and says it to screen readers.
(() => {
  const slider = document.getElementById("strength");
  if (!slider) return;
  const parts = document.querySelectorAll("[data-stop]");
  const show = () => {
    for (const part of parts) {
      part.hidden = part.dataset.stop !== slider.value;
      if (!part.hidden && part.className === "stop") {
        slider.setAttribute("aria-valuetext", part.textContent);
      }
    }
  };
  slider.addEventListener("input", show);
  slider.parentElement.hidden = false;
  show();
})();

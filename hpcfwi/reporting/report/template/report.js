"use strict";
(() => {
  const frames = JSON.parse(document.getElementById("frames").textContent);
  const slider = document.getElementById("iteration");
  const shown = document.getElementById("shown");
  const play = document.getElementById("play");
  const panels = document.querySelectorAll("img[data-panel]");
  let timer = 0;

  const show = () => {
    const frame = frames[Number(slider.value)];
    shown.textContent = frame.label;
    slider.setAttribute("aria-valuetext", frame.label);
    for (const panel of panels) {
      [panel.src, panel.alt] = frame.pictures[Number(panel.dataset.panel)];
    }
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  const step = () => {
    slider.value = Number(slider.value) + 1;
    show();
    if (Number(slider.value) >= frames.length - 1) stop();
  };

  slider.addEventListener("input", () => {
    stop();
    show();
  });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) >= frames.length - 1) slider.value = 0;
    show();
    play.textContent = "Stop";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(step, 400);
  });
  // a browser that reloads the page keeps the slider's place
  show();
})();

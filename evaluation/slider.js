// Shows what a slider points at, again whenever it is moved. `show(step)` may take its time: while a step is drawn, only
// the slider's latest position waits. `slider.dataset.shown` is the step that is drawn.
function follow(slider, show) {
  let drawing = false;
  async function draw() {
    if (drawing) return;
    drawing = true;
    while (slider.dataset.shown !== slider.value) {
      const step = slider.value;
      await show(Number(step));
      slider.dataset.shown = step;
    }
    drawing = false;
  }
  slider.addEventListener("input", draw);
  draw();
}

// Draws the report's charts, which are plotly's figures, and moves what depends on gamma.
const charts = [...document.querySelectorAll(".chart")];
const templates = JSON.parse(document.getElementById("templates").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const template = () => templates[dark.matches ? "dark" : "light"];

for (const chart of charts) {
  const figures = JSON.parse(chart.dataset.figures);
  let points, current;
  const show = ({data, layout}) => {
    // Arrow keys go from point to point, as the pointer does.
    points = data.flatMap(({x, y, hoverinfo}, curveNumber) => hoverinfo === "skip" ? [] :
      x.map((_, pointNumber) => ({curveNumber, pointNumber})).filter((_, i) => x[i] !== null && y[i] !== null));
    current = -1;
    Plotly.react(chart, data, {...layout, template: template()}, {displayModeBar: false, responsive: true});
  };
  show(figures[0]);
  const choice = figures.length > 1 && chart.previousElementSibling.querySelector("select");
  if (choice) {
    choice.selectedIndex = 0;  // a browser may have kept another one of before the page was loaded again
    choice.addEventListener("change", () => show(figures[choice.selectedIndex]));
  }
  chart.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step || !points.length) return;
    event.preventDefault();
    current = current < 0 && step < 0 ? points.length - 1 : (current + step + points.length) % points.length;
    Plotly.Fx.hover(chart, [points[current]]);
  });
  chart.addEventListener("blur", () => Plotly.Fx.unhover(chart));
}
dark.addEventListener("change", () => charts.forEach(chart => Plotly.relayout(chart, {template: template()})));

for (const section of document.querySelectorAll("main > section")) {
  const slider = section.querySelector("input[type=range]");
  if (!slider) continue;
  const steps = JSON.parse(slider.dataset.steps);
  const map = section.querySelector(".map"), moves = JSON.parse(map.dataset.moves), line = section.querySelector(".line");
  const cells = [...section.querySelectorAll(".readouts td")], images = [...section.querySelectorAll(".line-preps img")];
  const views = [...section.querySelectorAll(".view")], draw = views.length ? shapeViews(views) : null;

  follow(slider, i => {
    const {gamma, spoken, preps, chart, meshes} = steps[i];
    section.querySelector("output").textContent = gamma;
    slider.setAttribute("aria-valuetext", spoken);
    cells.forEach((cell, k) => { cell.textContent = steps[i].cells[k]; });
    images.forEach((image, k) => { image.src = preps[k]; });
    section.querySelectorAll(".empty").forEach((notice, k) => { notice.hidden = !meshes[k].empty; });
    const drawn = [Plotly.relayout(line, chart), Plotly.relayout(map, moves[i])];
    return Promise.all(draw ? [...drawn, draw(meshes.map(mesh => mesh.trace))] : drawn);
  });
}

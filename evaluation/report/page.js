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

// With JavaScript, the links above the sections are tabs: one section is shown, the address names it, arrow keys go through them.
const tabs = [...document.querySelectorAll("nav a")];
const panelOf = tab => document.querySelector(tab.hash);

function select(chosen) {
  for (const tab of tabs) {
    const panel = panelOf(tab), shown = tab === chosen;
    tab.setAttribute("aria-selected", shown);
    tab.tabIndex = shown ? 0 : -1;
    panel.hidden = !shown;
    if (shown)  // a hidden chart has no size
      panel.querySelectorAll(".js-plotly-plot").forEach(plot => Plotly.Plots.resize(plot));
  }
}

if (tabs.length) {
  document.querySelector("nav ul").setAttribute("role", "tablist");
  for (const tab of tabs) {
    const panel = panelOf(tab);
    tab.id = `tab-${panel.id}`;
    tab.parentElement.setAttribute("role", "none");
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", panel.id);
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", event => {
      event.preventDefault();
      history.replaceState(null, "", tab.hash);
      select(tab);
    });
    tab.addEventListener("keydown", event => {
      const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (!step) return;
      event.preventDefault();
      const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
      next.click();
      next.focus();
    });
  }
  const named = () => select(tabs.find(tab => tab.hash === location.hash) ?? tabs[0]);
  addEventListener("hashchange", named);
  named();
}

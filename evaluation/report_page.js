// Charts, the map and the slider of the report. A chart's data stand in its element's data-spec.
const SVG = "http://www.w3.org/2000/svg";
const MARGIN = {left: 58, right: 14, top: 12, bottom: 46};  // CSS pixels, as all lengths here
const REACH = 28;  // how far from a point the pointer may be

function element(parent, name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return parent.appendChild(made);
}

function format(value) {
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(1).replace(".0e", "e");
  return Math.abs(value) >= 1e4 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4));
}

// Round numbers from low to high, about so many; powers of ten, or 1, 2 and 5 of each, on a logarithmic axis.
function ticks(low, high, about, log) {
  const found = [];
  if (log) {
    const many = Math.log10(high / low) > 2.5;
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const digit of many ? [1] : [1, 2, 5]) found.push(digit * 10 ** power);
    return found.filter(value => value >= low * 0.999 && value <= high * 1.001);
  }
  const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(digit => digit * power).find(each => each >= raw);
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

function extent(values, axis) {
  let low = Math.min(...values), high = Math.max(...values);
  if (axis.zero) low = Math.min(0, low);
  if (low === high) [low, high] = axis.log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
  const room = axis.log ? (high / low) ** 0.04 : (high - low) * 0.04;
  if (axis.log) return [low / room, high * room];
  return [axis.zero && low === 0 ? 0 : low - room, high + room];
}

const scaler = ([low, high], from, to, log) => {
  const at = log ? Math.log : value => value;
  return value => from + (at(value) - at(low)) / (at(high) - at(low)) * (to - from);
};

// A point's mark. Training instances are faint, validation ones hollow, test ones strong and outlined.
function mark(parent, shape, x, y, size, color, split) {
  const s = size * {circle: 1, square: 0.88, triangle: 1.2, diamond: 1.25}[shape];
  const made = shape === "circle" ? element(parent, "circle", {cx: x, cy: y, r: s}) : element(parent, "path", {d: {
    square: `M${x - s},${y - s}h${2 * s}v${2 * s}h${-2 * s}z`,
    triangle: `M${x},${y - s}L${x + s},${y + 0.8 * s}H${x - s}z`,
    diamond: `M${x},${y - s}L${x + s},${y}L${x},${y + s}L${x - s},${y}z`,
  }[shape]});
  const look = {
    train: {fill: color, fillOpacity: 0.6},
    val: {fill: "var(--page)", stroke: color, strokeWidth: 2},
    test: {fill: color, stroke: "var(--ink)", strokeWidth: 1.3},
  }[split] || {fill: color};
  Object.assign(made.style, look);
  return made;
}

function legend(box, entries) {
  const list = document.createElement("ul");
  list.className = "legend";
  for (const entry of entries) {
    const item = list.appendChild(document.createElement("li"));
    const swatch = element(item, "svg", {width: 26, height: 14, "aria-hidden": true});
    if (entry.line) {
      const line = element(swatch, "line", {x1: 1, x2: 25, y1: 7, y2: 7, "stroke-width": 2});
      line.style.stroke = entry.color;
      if (entry.dash) line.setAttribute("stroke-dasharray", "5 3");
    }
    if (entry.mark) mark(swatch, entry.mark, 13, 7, 4.5, entry.color, entry.split);
    item.append(entry.name);
  }
  if (entries.length) box.prepend(list);
}

// Draws box's data-spec into it, and again when its width changes. Returns what marks a value of gamma.
function chart(box) {
  const spec = JSON.parse(box.dataset.spec);
  const isMap = Boolean(spec.points);
  const lines = isMap ? [] : spec.series;
  const points = isMap ? spec.points : lines.flatMap(line => line.x.map((x, i) => ({
    x, y: line.y[i], color: line.color, mark: line.mark,
    label: `${line.name}: ${format(line.y[i] ?? 0)}\n${spec.x.short || spec.x.label} ${format(x)}`,
  })).filter(point => point.y !== null && line.name));
  legend(box, isMap ? spec.legend : lines.filter(line => line.name && lines.length > 1));
  const svg = element(box, "svg", {tabindex: 0, role: "img", "aria-label": box.dataset.label});
  const tip = box.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  let placed = [], current = -1, gamma = null, width = 0, height = 0, toX, toY, cursor;

  function draw() {
    width = box.clientWidth;
    height = Math.round(isMap ? Math.min(Math.max(width * 0.72, 300), 470) : Math.min(Math.max(width * 0.56, 240), 330));
    const {left, right, top, bottom} = MARGIN, inner = {width: width - left - right, height: height - top - bottom};
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.style.height = `${height}px`;
    const all = isMap ? points : lines.flatMap(line => line.x.map((x, i) => ({x, y: line.y[i]}))).filter(p => p.y !== null);
    if (!all.length) return;
    let xs = extent(all.map(point => point.x), spec.x), ys = extent(all.map(point => point.y), spec.y);
    if (isMap) {  // one length on both axes, so that distances can be compared
      const unit = Math.max((xs[1] - xs[0]) / inner.width, (ys[1] - ys[0]) / inner.height);
      const around = ([low, high], size) => [(low + high - unit * size) / 2, (low + high + unit * size) / 2];
      [xs, ys] = [around(xs, inner.width), around(ys, inner.height)];
    }
    toX = scaler(xs, left, width - right, spec.x.log);
    toY = scaler(ys, height - bottom, top, spec.y.log);
    for (const value of ticks(...ys, inner.height / 48, spec.y.log)) {
      element(svg, "line", {class: "grid", x1: left, x2: width - right, y1: toY(value), y2: toY(value)});
      element(svg, "text", {x: left - 8, y: toY(value) + 4, "text-anchor": "end"}, format(value));
    }
    for (const value of ticks(...xs, inner.width / 80, spec.x.log)) {
      element(svg, "line", {class: "tick", x1: toX(value), x2: toX(value), y1: height - bottom, y2: height - bottom + 5});
      element(svg, "text", {x: toX(value), y: height - bottom + 18, "text-anchor": "middle"}, format(value));
    }
    element(svg, "line", {class: "tick", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom});
    element(svg, "text", {class: "axis", x: left + inner.width / 2, y: height - 6, "text-anchor": "middle"}, spec.x.label);
    const middle = top + inner.height / 2;
    element(svg, "text", {class: "axis", x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})`}, spec.y.label);
    cursor = element(svg, "g", {class: "cursor"});
    for (const line of lines.filter(each => each.line)) {
      let pen = "M", d = "";
      line.x.forEach((x, i) => {
        if (line.y[i] === null) pen = "M";
        else { d += `${pen}${toX(x).toFixed(1)},${toY(line.y[i]).toFixed(1)}`; pen = "L"; }
      });
      const path = element(svg, "path", {d, class: "curve"});
      path.style.stroke = line.color;
      if (line.dash) path.setAttribute("stroke-dasharray", "6 4");
    }
    if (isMap && spec.ends.length) {
      const [a, b] = spec.ends.map(i => points[i]);
      element(svg, "line", {class: "between", x1: toX(a.x), y1: toY(a.y), x2: toX(b.x), y2: toY(b.y)});
    }
    const size = isMap ? 4.6 : points.length > 60 ? 3 : 3.8;
    placed = points.map(point => ({...point, px: toX(point.x), py: toY(point.y)}));
    for (const p of placed) if (p.mark) mark(svg, p.mark, p.px, p.py, size + (p.split === "test"), p.color, p.split);
    if (isMap) svg.append(cursor);  // above the points
    point(gamma);
    tell(-1);
  }

  function point(value) {
    gamma = value;
    if (value === null || !cursor) return;
    cursor.replaceChildren();
    if (!isMap) element(cursor, "line", {x1: toX(value), x2: toX(value), y1: MARGIN.top, y2: height - MARGIN.bottom});
    else if (spec.ends.length) {
      const [a, b] = spec.ends.map(i => points[i]);
      const at = axis => a[axis] + value * (b[axis] - a[axis]);
      element(cursor, "circle", {cx: toX(at("x")), cy: toY(at("y")), r: 8});
    }
  }

  function tell(i) {
    svg.querySelector(".told")?.remove();
    current = i;
    tip.hidden = i < 0;
    if (i < 0) return;
    const {px, py, label} = placed[i];
    element(svg, "circle", {class: "told", cx: px, cy: py, r: 8});
    tip.textContent = label;
    const over = svg.getBoundingClientRect().top - box.getBoundingClientRect().top + py;
    tip.style.left = `${Math.max(0, Math.min(px - tip.offsetWidth / 2, width - tip.offsetWidth))}px`;
    tip.style.top = `${over > tip.offsetHeight + 14 ? over - tip.offsetHeight - 14 : over + 14}px`;
  }

  function nearest(event) {
    const area = svg.getBoundingClientRect();
    const far = placed.map(p => Math.hypot(p.px - event.clientX + area.left, p.py - event.clientY + area.top));
    const i = far.indexOf(Math.min(...far));
    tell(far[i] < REACH ? i : -1);
  }

  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("pointerleave", () => tell(-1));
  svg.addEventListener("blur", () => tell(-1));
  svg.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (event.key === "Escape") tell(-1);
    if (!step || !placed.length) return;
    event.preventDefault();
    tell(current < 0 ? (step > 0 ? 0 : placed.length - 1) : (current + step + placed.length) % placed.length);
  });
  new ResizeObserver(() => { if (box.clientWidth !== width) draw(); }).observe(box);
  draw();
  return point;
}

// Moves everything of a setting that depends on gamma.
function slide(section, charts) {
  const slider = section.querySelector("input[type=range]");
  if (!slider) return;
  const {gamma, columns, readouts, preps, meshes} = JSON.parse(slider.dataset.spec);
  const said = [...section.querySelectorAll(".readouts td")], images = [...section.querySelectorAll(".line-preps img")];
  const views = [...section.querySelectorAll(".view")];
  const draw = meshes.length ? shapeViews(views) : null;

  function show(i) {
    section.querySelector("output").textContent = "γ = " + gamma[i].toFixed(2);
    const now = readouts.flatMap(({values}) => values.map(texts => texts[i]));
    now.forEach((text, k) => { said[k].textContent = text; });
    const named = now.map((text, k) => `${readouts[Math.floor(k / columns.length)].name} ${columns[k % columns.length]} ${text}`);
    slider.setAttribute("aria-valuetext", [gamma[i].toFixed(2), ...named].join(", "));
    preps.forEach((prep, k) => { images[k].src = prep.sources[i]; });
    charts.forEach(point => point(gamma[i]));
    if (!draw) return null;
    section.querySelectorAll(".empty").forEach((notice, k) => { notice.hidden = !meshes[i][k].empty; });
    return draw(meshes[i].map(mesh => mesh.trace));
  }

  follow(slider, show);
}

for (const section of document.querySelectorAll("main > section")) {
  const drawn = new Map([...section.querySelectorAll(".chart")].map(box => [box, chart(box)]));
  slide(section, [...drawn].filter(([box]) => box.matches(".follows")).map(([, point]) => point));
}

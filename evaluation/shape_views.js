// Shapes in plotly, one a view, all turned together. Returns what draws one mesh in each, a promise.
function shapeViews(views) {
  const axis = {visible: false, range: [-1, 1]};
  const config = {displayModeBar: false, responsive: true, scrollZoom: false};
  let camera = {eye: {x: 0.72, y: -1.06, z: 0.5}};  // of all views
  let held = null;  // the view that was last touched
  const layout = () => ({
    margin: {l: 0, r: 0, t: 0, b: 0}, paper_bgcolor: "rgba(0,0,0,0)",
    scene: {xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "cube", dragmode: "turntable", camera},
  });

  // plotly's events tell of a turn before its last frame, so the camera is read off the view itself, in every frame.
  function turnTogether() {
    const scene = held && held._fullLayout && held._fullLayout.scene._scene;
    if (scene) {
      const now = scene.getCamera();
      if (JSON.stringify(now) !== JSON.stringify(camera)) {
        camera = now;
        views.filter(view => view !== held).forEach(view => Plotly.relayout(view, {"scene.camera": camera}));
      }
    }
    requestAnimationFrame(turnTogether);
  }

  views.forEach(view => view.addEventListener("pointerdown", () => { held = view; }, {capture: true}));
  turnTogether();
  return meshes => Promise.all(views.map((view, i) => Plotly.react(view, [meshes[i]], layout(), config)));
}

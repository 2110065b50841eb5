(function () {
  "use strict";
  var templates = JSON.parse(document.getElementById("plot-templates").textContent);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var printing = false;
  // The mode bar would lie on the panel titles; zooming by mouse works without it.
  var config = { responsive: true, displayModeBar: false };
  var plots = Array.prototype.map.call(document.querySelectorAll("figure"), function (figure) {
    var element = figure.querySelector(".plot");
    figure.querySelector(".drawn").hidden = true;
    element.hidden = false;
    return { element: element, text: figure.querySelector(".plot-data").textContent };
  });

  // Plotly keeps what it is given, so every drawing starts from the text again.
  function draw(plot) {
    var content = JSON.parse(plot.text);
    content.layout.template = templates[dark.matches && !printing ? "dark" : "light"];
    if (printing) { content.layout.width = 680; }
    Plotly.react(plot.element, content.data, content.layout, config);
  }
  function drawAll() { plots.forEach(draw); }

  dark.addEventListener("change", drawAll);
  window.addEventListener("beforeprint", function () { printing = true; drawAll(); });
  window.addEventListener("afterprint", function () { printing = false; drawAll(); });
  // A figure inside a folded part has no width until it is opened.
  document.querySelectorAll("details").forEach(function (part) {
    part.addEventListener("toggle", drawAll);
  });
  drawAll();
})();

// Puts a button under each figure that saves its drawing. Everything else works without scripts.
(function () {
  "use strict";
  document.querySelectorAll("figure").forEach(function (figure) {
    var button = document.createElement("button");
    var name = figure.id.replace("figure-", "") + ".svg";
    button.type = "button";
    button.className = "save";
    button.textContent = "Save " + name;
    button.addEventListener("click", function () {
      var drawing = figure.querySelector(".wide-page svg").outerHTML;
      var link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([drawing], { type: "image/svg+xml" }));
      link.download = name;
      link.click();
      URL.revokeObjectURL(link.href);
    });
    figure.querySelector("figcaption").append(" ", button);
  });
})();

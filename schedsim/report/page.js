const { figures, themes } = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const views = [];

function draw() {
  views.splice(0).forEach((view) => view.finalize());
  const theme = themes[dark.matches ? "dark" : "light"];
  figures.forEach((spec, number) => {
    const place = document.getElementById(`figure-${number}`);
    const narrow = place.clientWidth < 460;
    const legend = { ...theme.legend, columns: narrow ? 1 : 3, labelLimit: place.clientWidth - 70 };
    const axis = { ...theme.axis, labelLimit: narrow ? 90 : 160, tickCount: narrow ? 4 : 6 };
    vegaEmbed(place, spec, {
      config: { ...theme, legend, axis },
      renderer: "svg",
      actions: false,
      tooltip: { theme: dark.matches ? "dark" : "light" },
    }).then((drawn) => views.push(drawn));
  });
}

let width = 0;
new ResizeObserver(() => {
  const now = document.querySelector("main").clientWidth;
  if (now !== width) {
    width = now;
    draw();
  }
}).observe(document.querySelector("main"));
dark.addEventListener("change", draw);

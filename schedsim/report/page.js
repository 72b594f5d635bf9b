const { figures, themes } = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const views = [];

// What the longest label of a legend takes beside its symbol, about.
function widthOfLabels(spec) {
  const { encoding } = spec.layer ? spec.layer.at(-1) : spec;
  const names = encoding.color?.scale?.domain ?? [];
  return 32 + 7 * Math.max(0, ...names.map((name) => name.length));
}

function draw() {
  views.splice(0).forEach((view) => view.finalize());
  const theme = themes[dark.matches ? "dark" : "light"];
  figures.forEach((spec, number) => {
    const place = document.getElementById(`figure-${number}`);
    const narrow = place.clientWidth < 460;
    const columns = Math.max(1, Math.floor((place.clientWidth - 60) / widthOfLabels(spec)));
    const legend = { ...theme.legend, columns, labelLimit: place.clientWidth - 70 };
    const axis = { ...theme.axis, labelLimit: narrow ? 90 : 160, tickCount: narrow ? 4 : 6 };
    vegaEmbed(place, spec, {
      config: { ...theme, legend, axis },
      renderer: "svg",
      actions: false,
      tooltip: { theme: dark.matches ? "dark" : "light" },
    }).then((drawn) => views.push(drawn));
  });
}

const main = document.querySelector("main");
let width = main.clientWidth;
draw();
new ResizeObserver(() => {
  if (main.clientWidth !== width) {
    width = main.clientWidth;
    requestAnimationFrame(draw);
  }
}).observe(main);
dark.addEventListener("change", draw);

  const figure = document.querySelector("figure"), slider = document.querySelector("input[type=range]");
  const move = at => { slider.value = at; figure.style.setProperty("--at", slider.value + "%"); };
  slider.oninput = () => move(slider.value);
  const follow = event => { const box = figure.getBoundingClientRect(); move((event.clientX - box.left) / box.width * 100); };
  figure.onpointerdown = event => { figure.setPointerCapture(event.pointerId); follow(event); };
  figure.onpointermove = event => { if (event.buttons) follow(event); };
  addEventListener("keydown", event => {
    const step = { ArrowLeft: -2, ArrowRight: 2 }[event.key];
    if (!step || event.target.matches?.("select") || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); move(+slider.value + step);
  });

  const figure = document.querySelector("figure"), slider = document.querySelector("input[type=range]");
  const move = at => { slider.value = at; figure.style.setProperty("--at", slider.value + "%"); };
  slider.oninput = () => move(slider.value);
  const follow = event => { const box = figure.getBoundingClientRect(); move((event.clientX - box.left) / box.width * 100); };
  figure.onpointerdown = event => { figure.setPointerCapture(event.pointerId); follow(event); };
  figure.onpointermove = event => { if (event.buttons) follow(event); };

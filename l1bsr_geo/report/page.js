for (const input of document.querySelectorAll(".slider input")) {
  const show = () => {
    input.parentElement.style.setProperty("--at", input.value + "%");
    input.setAttribute("aria-valuetext", `${input.value} % before, ${100 - input.value} % after`);
  };
  input.addEventListener("input", show);
  show();
}

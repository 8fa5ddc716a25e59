// What viser leaves to be done in the browser; `title` is the tab's.
(title) => {
  document.title = title;
  // A page that has lost its server and found it again comes here once more.
  if (window.isPrepared) return;
  window.isPrepared = true;

  // On a narrow window the panel would lie on the asset: it is closed until somebody touches the page. Viser opens it
  // more than once while it starts, on a phone as a sheet, whose handle has buttons as long as it is open.
  const phone = matchMedia("(max-width: 36em)");
  const narrow = matchMedia("(max-width: 899px)");
  const closePanel = () => {
    if (!phone.matches) {
      const minimize = narrow.matches && document.querySelector('[aria-label="Minimize panel"]');
      if (!minimize) return;
      minimize.click();
      // Viser gives the focus, and its ring, to the button that opens the panel.
      setTimeout(() => document.activeElement?.blur(), 50);
      return;
    }
    const papers = [...document.querySelectorAll(".mantine-Paper-root")];
    const sheet = papers.find((paper) => getComputedStyle(paper).position === "fixed");
    const handle = sheet?.querySelector('[style*="cursor: pointer"]');
    if (handle?.querySelector("button")) handle.click();
  };
  const keepClosed = () => {
    const closing = setInterval(closePanel, 200);
    for (const touch of ["pointerdown", "keydown"])
      addEventListener(touch, () => clearInterval(closing), { capture: true, once: true });
  };
  keepClosed();
  phone.addEventListener("change", keepClosed);

  // Viser's splats are squares of two coordinates, for which three.js finds no bounding sphere. It reports that, and draws
  // them wherever they are, as is right. With a sphere without an end it does the same.
  const report = console.error;
  console.error = (...words) => {
    const geometry = words.find((word) => Number.isNaN(word?.boundingSphere?.radius));
    if (geometry && String(words[0]).includes("computeBoundingSphere")) geometry.boundingSphere.radius = Infinity;
    else report(...words);
  };
}

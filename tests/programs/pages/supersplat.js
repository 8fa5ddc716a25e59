import { createViewer } from "/node_modules/@playcanvas/supersplat-viewer/dist/viewer.js";

// The viewer takes a camera when it begins: each view opens it anew.
export async function open(contentUrl, suffix, place) {
  const off = { enabled: false };
  let viewer, shown;
  return async view => {
    if (shown === view.position.join()) return;
    shown = view.position.join();
    viewer?.destroy();
    place.replaceChildren();
    viewer = await createViewer({
      container: place, contentUrl, ui: false, noanim: true, nofx: true, renderer: "webgl",
      settings: {
        version: 2, tonemapping: "none", highPrecisionRendering: false, background: { color: [1, 1, 1] },
        postEffectSettings: {
          sharpness: { ...off, amount: 0 }, bloom: { ...off, intensity: 0, blurLevel: 2 },
          grading: { ...off, brightness: 1, contrast: 1, saturation: 1, tint: [1, 1, 1] },
          vignette: { ...off, intensity: 0, inner: 0, outer: 1, curvature: 1 }, fringing: { ...off, intensity: 0 },
        },
        animTracks: [], cameras: [{ initial: { position: view.position, target: view.target, fov: 35 } }],
        annotations: [], startMode: "default",
      },
    });
    while (!viewer.state.loaded) await new Promise(requestAnimationFrame);
  };
}

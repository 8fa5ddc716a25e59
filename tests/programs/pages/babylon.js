const script = src => new Promise((resolve, reject) =>
  document.head.append(Object.assign(document.createElement("script"), { src, onload: resolve, onerror: reject })));

export async function open(url, suffix, place) {
  await script("/node_modules/fflate/umd/index.js");
  await script("/node_modules/babylonjs/babylon.js");
  await script("/node_modules/babylonjs-loaders/babylonjs.loaders.min.js");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 256;
  place.append(canvas);
  const engine = new BABYLON.Engine(canvas, true);
  const scene = new BABYLON.Scene(engine);
  scene.clearColor = new BABYLON.Color4(1, 1, 1, 1);
  const camera = new BABYLON.FreeCamera("camera", BABYLON.Vector3.Zero(), scene);
  Object.assign(camera, { fov: 35 * Math.PI / 180, minZ: 0.1, maxZ: 100 });
  if (suffix === ".obj") {
    // As much light from everywhere: an .obj has no unlit material.
    new BABYLON.HemisphericLight("light", BABYLON.Vector3.Up(), scene).groundColor = BABYLON.Color3.White();
  }
  // Beside the page, where Babylon itself would fetch it from a host of others.
  const spzLibraryUrl = new URL("/node_modules/@adobe/spz/dist/spz.js", location.href).href;
  await BABYLON.ImportMeshAsync(url, scene, { pluginOptions: { splat: { spzLibraryUrl, fflate: window.fflate } } });
  await scene.whenReadyAsync();
  // Left-handed: what is at x in the file is at -x here.
  const point = ([x, y, z]) => new BABYLON.Vector3(-x, y, z);
  return view => {
    camera.position = point(view.position);
    camera.setTarget(point(view.target));
    scene.render();
  };
}

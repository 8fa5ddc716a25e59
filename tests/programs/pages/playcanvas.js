import * as pc from "playcanvas";

const load = (app, url, type) => new Promise((resolve, reject) =>
  app.assets.loadFromUrl(url, type, (error, asset) => error ? reject(error) : resolve(asset)));

export async function open(url, suffix, place) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 256;
  place.append(canvas);
  const app = new pc.Application(canvas, { graphicsDeviceOptions: { antialias: true } });
  app.setCanvasResolution(pc.RESOLUTION_FIXED, 256, 256);
  app.start();
  const camera = new pc.Entity();
  camera.addComponent("camera", { clearColor: pc.Color.WHITE, fov: 35, nearClip: 0.1, farClip: 100 });
  app.root.addChild(camera);
  let entity;
  if (suffix.endsWith(".glb")) {
    entity = (await load(app, url, "container")).resource.instantiateRenderEntity();
  } else {
    entity = new pc.Entity();
    entity.addComponent("gsplat", { asset: await load(app, url, "gsplat") });
  }
  app.root.addChild(entity);
  const put = (view, scale) => { camera.setPosition(...view.position.map(x => x * scale)); camera.lookAt(...view.target); };
  // It sorts once a camera moves, but not while it sorts still: so the camera comes to its place from another one.
  let shown;
  return async view => {
    if (shown === view.position.join()) return;
    shown = view.position.join();
    for (const scale of [2, 1]) {
      await new Promise(resolve => setTimeout(resolve, 500));
      put(view, scale);
    }
  };
}

export async function open(url, suffix, place) {
  window.CESIUM_BASE_URL = "/node_modules/cesium/Build/Cesium/";
  await new Promise((resolve, reject) => document.head.append(
    Object.assign(document.createElement("script"), { src: CESIUM_BASE_URL + "Cesium.js", onload: resolve, onerror: reject })));
  const widget = new Cesium.CesiumWidget(place, {
    baseLayer: false, globe: false, skyBox: false, skyAtmosphere: false, useDefaultRenderLoop: false, orderIndependentTranslucency: false,
  });
  const { scene, camera } = widget;
  scene.backgroundColor = Cesium.Color.WHITE;
  if (scene.sun) scene.sun.show = scene.moon.show = false;
  scene.fog.enabled = false;
  document.querySelector(".cesium-widget-credits").style.display = "none";
  const ground = Cesium.Transforms.eastNorthUpToFixedFrame(Cesium.Cartesian3.fromDegrees(0, 0));
  let ready;
  if (suffix === ".spz.glb") {
    const tiles = await Cesium.Cesium3DTileset.fromUrl(url.replace(".spz.glb", ".tileset.json"), { modelMatrix: ground });
    scene.primitives.add(tiles);
    ready = () => tiles.tilesLoaded;
  } else {
    const model = scene.primitives.add(await Cesium.Model.fromGltfAsync({ url, modelMatrix: ground }));
    ready = () => model.ready;
  }
  camera.frustum = new Cesium.PerspectiveFrustum({ fov: 35 * Math.PI / 180, aspectRatio: 1, near: 0.1, far: 100 });
  // Of a tile x goes to the east, y up and z to the south; of a model, whose front is Cesium's forward, z to the east.
  const turned = ([x, y, z]) => suffix === ".spz.glb" ? new Cesium.Cartesian3(x, -z, y) : new Cesium.Cartesian3(z, x, y);
  const there = (vector, point) => point
    ? Cesium.Matrix4.multiplyByPoint(ground, turned(vector), new Cesium.Cartesian3())
    : Cesium.Cartesian3.normalize(Cesium.Matrix4.multiplyByPointAsVector(ground, turned(vector), new Cesium.Cartesian3()), new Cesium.Cartesian3());
  return async view => {
    const direction = there(view.target.map((value, axis) => value - view.position[axis]), false);
    const right = Cesium.Cartesian3.normalize(Cesium.Cartesian3.cross(direction, there([0, 1, 0], false), new Cesium.Cartesian3()), new Cesium.Cartesian3());
    const up = Cesium.Cartesian3.cross(right, direction, new Cesium.Cartesian3());
    camera.setView({ destination: there(view.position, true), orientation: { direction, up } });
    // Tiles begin to load when they are first looked at, and their Gaussians are sorted beside the page.
    for (let quiet = 0; quiet < 2; quiet = ready() ? quiet + 1 : 0) {
      widget.render();
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  };
}

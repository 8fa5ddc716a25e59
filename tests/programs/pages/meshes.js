// Meshes in three.js, which Spark draws beside its Gaussians.
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { MTLLoader } from "three/addons/loaders/MTLLoader.js";
import { OBJLoader } from "three/addons/loaders/OBJLoader.js";

export async function mesh(url) {
  if (url.endsWith(".glb")) return (await new GLTFLoader().loadAsync(url)).scene;
  const materials = await new MTLLoader().loadAsync(url.replace(/obj$/, "mtl"));
  return new OBJLoader().setMaterials(materials).loadAsync(url);
}

export const aim = (camera, view) => {
  camera.position.set(...view.position);
  camera.lookAt(...view.target);
};
